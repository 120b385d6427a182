#!/usr/bin/env bash
# Clean and export leave no diff, README is the index page, ruff finds nothing, then all notebooks
# and tests, with a count and the ten slowest. More words go to pytest: tools/check.sh -k crops.
set -euo pipefail
case ${1:-} in -h | --help) sed -n '2,3s/^# //p' "$0"; exit ;; esac
cd "$(dirname "$0")/.."
unset IN_TEST  # with it nbdev_export writes nothing, and nothing would ever differ
unset PYTHONDONTWRITEBYTECODE  # where it is set each process would compile the package anew

# Compare with a snapshot rather than with git, so that work in progress can be checked too.
before=$(mktemp -d); trap 'rm -rf "$before"' EXIT
cp -r nbs dppt_nb README.md tools "$before"/

unchanged() {
  local changed
  if ! changed=$(diff -rq -x __pycache__ -x .ipynb_checkpoints -x .last_checked "$before/$1" "$1"); then
    echo "$2 changes what is stored, so run it and commit the result:"; echo "$changed"; exit 1
  fi
}

echo "== clean";  nbdev_clean;  unchanged nbs "nbdev_clean"
echo "== export"; nbdev_export; unchanged dppt_nb "nbdev_export"
echo "== readme"; python tools/readme.py; unchanged README.md "make readme"; unchanged tools "make readme"
echo "== ruff";   ruff check --quiet dppt_nb nbs tests tools
echo "== notebooks and tests"
# glibc keeps large blocks instead of giving them back and having them zeroed again
export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=4294967296
# one more than two cores, because some tests wait for a browser or another process
IN_TEST=1 MPLBACKEND=agg OMP_NUM_THREADS=1 python -m pytest -n "${WORKERS:-3}" --dist worksteal --durations=10 "$@"
