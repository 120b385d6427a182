#!/usr/bin/env bash
# Install torch before the rest: a CPU build where no NVIDIA GPU is, so that nobody downloads
# gigabytes of CUDA for nothing. The first argument is `cpu`, `default` or `auto`; the others are
# pip with its options.
set -euo pipefail
cd "$(dirname "$0")/.."
choice=$1
shift

if [ "$choice" = auto ]; then
  choice=cpu
  if [ "$(uname -s)" = Darwin ]; then choice=default; fi    # its wheels on PyPI are CPU builds
  if nvidia-smi -L > /dev/null 2>&1; then choice=default; fi
fi

case $choice in
  default) exit 0 ;;                                        # comes with the project's other needs
  cpu) ;;
  *) echo "TORCH is '$choice'; it must be cpu, default or auto"; exit 1 ;;
esac

index=https://download.pytorch.org/whl/cpu
if "$@" install --retries 0 --timeout 15 --no-deps -c requirements.lock --index-url $index torch \
    > /dev/null 2>&1; then
  echo "torch: a CPU build (TORCH=default takes the usual one)"
else
  echo "torch: PyTorch's CPU wheels cannot be had here, so the usual index is asked"
fi
