#!/bin/sh
# Makes a virtual environment of the packages of a lock, each checked by its hash, and leaves nothing else behind.
#   install-packages.sh UV_LOCK LOCK VENV [TORCH_INDEX]
# With TORCH_INDEX, torch and torchvision come from that index in the version of the lock, whatever they are built
# for; their hashes are not in the lock, and the CUDA libraries of the lock's own build are left out.
set -eu
uv_lock=$1 lock=$2 venv=$3 torch_index=${4:-}
export UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_NO_PROGRESS=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r "$uv_lock"
uv="$work/tools/bin/uv"
"$uv" venv --quiet --python "$(command -v python)" "$venv"
export VIRTUAL_ENV="$venv"

if [ -z "$torch_index" ]; then
    "$uv" pip sync --quiet --require-hashes "$lock"
    exit
fi

awk '/^[a-z0-9]/ { of_torch = /^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ } !of_torch' "$lock" \
    > "$work/rest.lock"
grep -oE '^(torch|torchvision)==[^ ;\\]+' "$lock" > "$work/torch.txt"
"$uv" pip sync --quiet --require-hashes "$work/rest.lock"
"$uv" pip install --quiet --index "$torch_index" -r "$work/torch.txt"
