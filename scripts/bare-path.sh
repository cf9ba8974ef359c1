#!/bin/sh
# Makes the folder named as the argument, in which there is what README asks for and nothing else: Python, git, make
# and the tools of a POSIX system (with mount, which every Linux has), as links. With it as the whole PATH, `make demo`
# and `make test` find no container engine, database, kubectl or browser that this machine happens to have.
set -eu

mkdir -p "$1"
for name in git make sh bash env \
    awk basename cat chmod chown cmp comm cp cut date dd df diff dirname du echo expr false find getconf grep head hostname id \
    kill ln ls mkdir mkfifo mktemp mount mv nice nproc od printf ps pwd readlink realpath rm rmdir sed seq sleep sort stat stty \
    tail tar tee test time timeout touch tr true tty umount uname uniq wc which whoami xargs; do
    path=$(command -v "$name" || true)
    case $path in
    /*) ln -sf "$path" "$1/$name" ;;
    esac
done
python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')
ln -sf "$python" "$1/python3"
