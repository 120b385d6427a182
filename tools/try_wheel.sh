#!/usr/bin/env bash
# Install one built wheel or sdist into a new environment and use it from an empty folder:
#     tools/try_wheel.sh dist/dppt_nb-0.2.0-py3-none-any.whl
# The environment sees the packages of the Python that runs this (where that is of a virtual
# environment, those of the Python below it), so that PyTorch need not be fetched again; dppt-nb
# itself comes from the file, and the check says where it was found.
set -euo pipefail
if ! [ -f "${1:-}" ]; then sed -n '2,6s/^# //p' "$0"; [[ ${1:-} =~ ^(-h|--help)$ ]]; exit; fi
built=$(realpath "$1")
"${PYTHON:-python3}" - "$built" <<'PY'
from pathlib import Path
import sys

size, most = Path(sys.argv[1]).stat().st_size, 30_000_000
print(f"{sys.argv[1]}: {size / 1e6:.1f} MB")
if size > most: sys.exit(f"more than {most / 1e6:.0f} MB; leave out what need not travel")
PY
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
"${PYTHON:-python3}" -m venv --system-site-packages env
env/bin/pip install -q "$built"
mkdir empty && cd empty
../env/bin/python - <<'PY'
from pathlib import Path
import sys

import dppt_nb

home = Path(dppt_nb.__file__).parent
assert home.is_relative_to(Path(sys.prefix).resolve()), f"dppt_nb came from {home}"
assert (home / "py.typed").is_file(), "the wheel has no py.typed"
assert list(home.glob("weights/*/model.safetensors")), "the wheel has no weights"
print("dppt-nb", dppt_nb.__version__, "from", home)
PY
../env/bin/python -c 'import dppt_nb; print(dppt_nb.__path__[0])' | {
  read -r home; cp "$home/photos/astronaut.jpg" me.jpg
}
# A photograph becomes a skeleton without a connection, and soon.
../env/bin/python - <<'PY'
import socket
import time

def refuse(*_): raise AssertionError("a connection was asked for")
socket.socket.connect = socket.create_connection = refuse
start = time.time()

from dppt_nb import PosePredictor

predictor = PosePredictor.from_pretrained()
ready, work = time.time(), time.process_time()
people = predictor("me.jpg", [(40, 10, 400, 850)])
people.draw().save("skeleton.png")
work, done = time.process_time() - work, time.time()
print(f"{people}\nimport and weights {ready - start:.1f} s, the first call {done - ready:.1f} s")
assert (people.scores > 0.3).sum() >= 6, f"too few joints: {people.scores.round(2)}"
# by processor time, so that a busy machine turns nothing red
assert work < 5, f"the first call took {work:.1f} s of processor time"
PY
../env/bin/dppt predict dppt_s_lspet me.jpg --out poses
../env/bin/python - <<'PY'
import json

row, = map(json.loads, open("poses/poses.jsonl"))
assert len(row["keypoints"]) == 14 and row["photo"] == "me.jpg", row
PY
test -s poses/me-poses.jpg
../env/bin/dppt models
../env/bin/dppt eval tokenpose_nano --people 64 --out judged
../env/bin/dppt train tokenpose_nano --people 64 --epochs 1 --out run
