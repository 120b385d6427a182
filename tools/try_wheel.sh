#!/usr/bin/env bash
# Install one built wheel or sdist into a new environment and use it from an empty folder:
#     tools/try_wheel.sh dist/dppt_nb-0.2.0-py3-none-any.whl
# The environment sees the packages of the Python that runs this, so that PyTorch need not be fetched
# again; dppt-nb itself comes from the file, and the check says where it was found.
set -euo pipefail
built=$(realpath "$1")
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
../env/bin/dppt models
../env/bin/dppt eval tokenpose_nano --people 64 --out judged
../env/bin/dppt train tokenpose_nano --people 64 --epochs 1 --out run
