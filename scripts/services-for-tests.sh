#!/usr/bin/env bash
# Installs Postgres, which some tests start, where this machine has apt and we are root; elsewhere, those tests say
# that it is missing and are skipped. Does nothing where Postgres is there.
set -euo pipefail

if command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    exit 0
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "note: Postgres is not installed; the tests that start it are skipped. Debian's package is postgresql." >&2
    exit 0
fi
# Debian would make and start a database of its own.
if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
    mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends postgresql >/dev/null
