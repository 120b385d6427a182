#!/usr/bin/env bash
# PyTorch's CPU wheel, a tenth of the CUDA one in size, where it serves and can be had:
#     tools/torch.sh auto|cpu|default PIP
# `auto` takes it on Linux without an NVIDIA GPU. Out of reach, it leaves PyTorch to the usual index,
# where the install that follows fetches it. The version is the one that requirements.lock names.
set -euo pipefail
if [ $# -ne 2 ]; then sed -n '2,5s/^# //p' "$0"; [[ ${1:-} =~ ^(-h|--help)$ ]]; exit; fi
choice=$1 pip=$2
cd "$(dirname "$0")/.."

case $choice in
  cpu | default) ;;
  auto)
    choice=cpu
    if [ "$(uname -s)" != Linux ] || nvidia-smi -L >/dev/null 2>&1; then choice=default; fi ;;
  *) echo "TORCH is $choice; it must be auto, cpu or default"; exit 1 ;;
esac
if [ "$choice" = default ]; then exit 0; fi

command -v "$pip" >/dev/null || { echo "$pip is no program; name the environment's pip"; exit 1; }
pin=$(grep '^torch==' requirements.lock)
# Its own dependencies come with the package's, under the same lock. One try: nothing may hang here.
"$pip" install -q --no-deps --retries 0 --timeout 15 \
  --index-url https://download.pytorch.org/whl/cpu "$pin" >/dev/null 2>&1 \
  || echo "PyTorch's CPU wheels are out of reach; $pin comes from the usual index."
