#!/usr/bin/env bash
# All that wants a GPU, in one run of some minutes: tools/card.py, then rows of the study at S size:
#     tools/gpu.sh STORE OUT [MINUTES]
# STORE is a crop store of LSPET (dppt data prepare lspet), OUT a folder. The rows take what is left
# of MINUTES (12 unless given); what was stopped goes on when the same line is given again. BASE names
# another recipe for the rows, CARD further options of tools/card.py.
set -euo pipefail
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
  sed -n '2,6s/^# //p' "$0"; [[ ${1:-} =~ ^(-h|--help)$ ]]; exit
fi
store=$(realpath "$1"); mkdir -p "$2"; out=$(realpath "$2"); minutes=${3:-12}
cd "$(dirname "$0")/.."
end=$((SECONDS + minutes * 60))
python=${PYTHON:-python3}

# its parts begin in two thirds of the time; those that are in card.json it leaves out. CARD is split
# into words
"$python" tools/card.py --data lspet --root "$store" --out "$out" \
  --minutes $((minutes * 2 / 3)) ${CARD:-}

# at the end of the time the step that runs is finished and saved
rows() {
  local left=$((end - SECONDS)) study=$1
  if [ "$left" -lt 20 ]; then echo "not begun, the time is over: $*"; return; fi
  timeout --signal TERM "$left" "$python" -m dppt_nb study "$@" --data lspet --root "$store" \
    --base "${BASE:-tokenpose_s}" --out "$out/$study" || [ $? -eq 124 ]
}
taught=(--teacher "$out/sdpose/tokenpose-seed{seed}")
for seed in 0 1 2; do
  rows sdpose --seed "$seed" --rows tokenpose
  rows sdpose --seed "$seed" --rows ppt,dppt,sdpose,sd_dppt "${taught[@]}"
  rows dppt --seed "$seed" --rows tokenpose_taught "${taught[@]}"
done
