#!/usr/bin/env bash
# Build wheel and sdist into dist/ from what git holds, and use the wheel from an empty folder.
# The README gets absolute links first, so that it shows on a package index as it does here.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

git archive HEAD | tar -x -C "$work"
"$python" tools/readme.py --absolute "$work/README.md"
"$python" -m build --outdir dist "$work"

"$python" -m venv --system-site-packages "$work/venv"       # what it needs is there already
"$work/venv/bin/pip" -q install --no-deps --force-reinstall dist/*.whl
mkdir "$work/empty"
cd "$work/empty"
"$work/venv/bin/python" - <<'CODE'
import dppt_nb
from dppt_nb import load_network

network, recipe, keypoints = load_network("tokenpose_nano")
print(f"dppt-nb {dppt_nb.__version__} from {dppt_nb.__file__}")
print(f"{recipe.model} finds {len(keypoints)} keypoints")
CODE
"$work/venv/bin/dppt" models > /dev/null
"$work/venv/bin/dppt" train tokenpose_nano --people 64 --epochs 1 --image-size 64x48 --out run
"$work/venv/bin/dppt" eval run --people 64
