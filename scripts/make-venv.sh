#!/bin/sh
# Make .venv with the Python named as the argument, else with the first one on PATH that is new enough.
# A .venv that works is kept, and only given the pip that it may lack.
set -eu

if .venv/bin/python -c '' 2>/dev/null; then
    exec .venv/bin/python -m ensurepip --upgrade
fi
if [ $# -eq 0 ]; then
    set -- python3 python3.13 python3.12 python3.11
fi

for python in "$@"; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    echo "Making .venv with $("$python" --version), $python."
    "$python" -m venv --clear .venv && exit 0
    echo "$python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv." >&2
    exit 2
done

if command -v "$1" >/dev/null; then
    found="$("$1" --version 2>&1)"
else
    found="not there"
fi
echo "raregrade needs Python 3.11 or newer, but $1 is $found." >&2
echo "Install one, or name it: make install PYTHON=/path/to/python" >&2
exit 2
