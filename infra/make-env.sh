#!/bin/sh
# Writes infra/.env from infra/.env.example, with a random value for each secret; leaves one that exists alone.
set -eu
cd "$(dirname "$0")"

if [ -e .env ]; then
    echo "infra/.env exists already. Delete it for new secrets; the databases keep the old ones." >&2
    exit 2
fi
random() {
    od -An -N 24 -tx1 /dev/urandom | tr -d ' \n'
}
umask 077
while IFS= read -r line; do
    case "$line" in
    "" | "#"*) ;;
    *=) line="$line$(random)" ;;
    esac
    printf '%s\n' "$line"
done <.env.example >.env.new
mv .env.new .env
echo "wrote infra/.env"
