#!/usr/bin/env bash
# Sees to it that the tests in tests/containers find a container engine and the image that ours is made from.
# Prints the engine's address, for DOCKER_HOST; where it cannot, says why on standard error and exits with 1.
#
# Does only what is missing: an engine that answers is taken as it is; else podman is installed (as root, with apt),
# configured where it does not work as it comes, and its service started, which ends by itself after a quiet hour.
set -euo pipefail

base_image=${BASE_IMAGE:-docker.io/library/python:3.11-slim}
say() { echo "containers-for-tests: $*" >&2; }
refuse() { say "$*"; exit 1; }
answers() {
    [[ -S $1 ]] && python3 - "$1" 2>/dev/null <<'PYTHON'
import socket, sys
engine = socket.socket(socket.AF_UNIX)
engine.settimeout(5)
engine.connect(sys.argv[1])
engine.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
sys.exit(b" 200 " not in engine.recv(64))
PYTHON
}

install_podman() {
    [[ $(id -u) == 0 ]] || refuse "no container engine here, and installing podman takes root"
    command -v apt-get >/dev/null || refuse "no container engine here, and no apt-get to install podman with"
    say "installing podman"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        podman runc uidmap netavark aardvark-dns ca-certificates; } >&2 || refuse "podman could not be installed"
}

# A root file system to try the engine with, before there is any image: the smallest that can run a command.
can_run() {
    local tree
    tree=$(mktemp -d)
    mkdir -p "$tree"/{bin,proc,sys,dev,etc,tmp}
    cp "$(type -P true)" "$tree/bin/true"
    cp --parents $(ldd "$tree/bin/true" 2>/dev/null | grep -o '/[^ ]*') "$tree" 2>/dev/null || true
    tar -C "$tree" -c . | podman import --quiet - localhost/raregrade-probe >/dev/null 2>&1
    rm -rf "$tree"
    local code=0
    podman run --rm localhost/raregrade-probe /bin/true >/dev/null 2>&1 || code=1
    podman rmi --force localhost/raregrade-probe >/dev/null 2>&1 || true
    return $code
}

# Within a container or a small virtual machine the defaults ask for rights that root does not have there.
configure_podman() {
    can_run && return
    local conf=/etc/containers/containers.conf
    [[ $(id -u) == 0 ]] || refuse "podman does not run containers here: try \`podman run --rm $base_image true\`"
    [[ -e $conf ]] && refuse "podman does not run containers here, and $conf exists: left as it is"
    say "podman does not run containers as it comes; writing $conf"
    mkdir -p /etc/containers
    cat > "$conf" <<'CONF'
# Written by scripts/containers-for-tests.sh of raregrade, for a machine where root may not raise limits.
[containers]
netns = "host"
cgroupns = "host"
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
CONF
    can_run && return
    rm -f "$conf"
    refuse "podman does not run containers on this machine"
}

# Where no registry answers: the same Python, from Debian's packages.
make_stand_in() {
    [[ $(id -u) == 0 ]] || refuse "no registry gives $base_image, and making a stand-in takes root"
    if ! command -v debootstrap >/dev/null; then
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap; } >&2 \
            || refuse "no registry gives $base_image, and debootstrap could not be installed to make a stand-in"
    fi
    local tree mirror
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
    [[ -n $mirror ]] || refuse "no registry gives $base_image, and apt knows no place to make a stand-in from"
    tree=$(mktemp -d)
    chmod 755 "$tree"
    say "no registry gives $base_image; making a stand-in from Debian packages"
    debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip bookworm "$tree" \
        "$mirror" >&2 || refuse "debootstrap failed"
    local name
    for name in python python3; do ln -sf /usr/bin/python3 "$tree/usr/local/bin/$name"; done
    rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
    tar -C "$tree" -c . | podman import --quiet --change 'CMD ["python3"]' --change 'ENV LANG=C.UTF-8' \
        --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' - "$base_image" >&2
    rm -rf "$tree"
}

start_service() {
    local folder=/run/podman
    [[ $(id -u) == 0 ]] || folder=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/podman
    socket=$folder/podman.sock
    answers "$socket" && return
    mkdir -p "$folder"
    # From the root: a service whose folder is deleted, such as a checkout, starts no container any more.
    (cd / && exec setsid podman system service --time=3600 "unix://$socket" </dev/null >/dev/null 2>&1) &
    for _ in $(seq 50); do
        answers "$socket" && return
        sleep 0.2
    done
    refuse "podman's service does not answer at $socket"
}

if [[ -n ${DOCKER_HOST:-} ]]; then
    echo "$DOCKER_HOST"
    exit
fi
if answers /var/run/docker.sock; then
    echo unix:///var/run/docker.sock
    exit
fi
command -v podman >/dev/null || install_podman
if ! podman image exists "$base_image"; then
    configure_podman
    timeout 120 podman pull --quiet "$base_image" >&2 || make_stand_in
fi
start_service
echo "unix://$socket"
