# shellcheck shell=bash
# Sourced by .ci/run. Gives the tests a Docker engine, and what the image is built from where that cannot be
# had from a registry. By hand:  source .ci/engine.sh; engine_up; make test-all; engine_down
#
#   engine_up    uses the engine that answers, or else installs (Debian) and starts one of its own; exports
#                IMAGE_BUILD_ARGS, which tests/engine.py hands to `docker build`
#   engine_down  stops that engine and removes all of its data; without it, only what engine_up added

engine_dir=  # of the engine started here: socket, data, log
engine_pid=
base_image=debian:bookworm-slim
made_base=
made_wheel=
cache_dir=${XDG_CACHE_HOME:-$HOME/.cache}/flare-ci

engine_up() {
    docker info >/dev/null 2>&1 || start_engine || return
    IMAGE_BUILD_ARGS=
    use_base_image || return
    use_cpu_torch || return
    export IMAGE_BUILD_ARGS
    echo "engine: $(docker version --format '{{.Server.Version}}'), build arguments:${IMAGE_BUILD_ARGS:- none}"
}

engine_down() {
    [ -z "$made_wheel" ] || rm -f "$made_wheel"
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid" && wait "$engine_pid" || true
        rm -rf "$engine_dir"
        unset DOCKER_HOST
    elif [ -n "$made_base" ]; then
        docker rmi "$made_base" >/dev/null || true
    fi
    engine_pid='' made_base='' made_wheel=''
}

need() { # COMMAND PACKAGE
    command -v "$1" >/dev/null && return
    [ -n "${apt_updated:-}" ] || apt-get update -qq
    apt_updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2"
}

start_engine() {
    need dockerd docker.io || return
    # A socket and data of its own: nothing is shared with an engine that starts later, all of it goes away.
    engine_dir=$(mktemp -d /var/tmp/flare-engine.XXXXXX) || return
    export DOCKER_HOST=unix://$engine_dir/docker.sock
    dockerd --host "$DOCKER_HOST" --data-root "$engine_dir/data" --exec-root "$engine_dir/exec" \
        --pidfile "$engine_dir/pid" >"$engine_dir/log" 2>&1 </dev/null &
    engine_pid=$!
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 1
    done
    echo "the Docker engine does not start; the end of its log:" >&2
    tail -20 "$engine_dir/log" >&2
    return 1
}

# The Dockerfile's own base image, or a Debian of the same release made here.
use_base_image() {
    local name=flare-ci-base:bookworm
    timeout 120 docker pull -q "$base_image" >/dev/null 2>&1 && return
    if ! docker image inspect "$name" >/dev/null 2>&1; then
        import_base_image "$name" || return
        made_base=$name
    fi
    base_image=$name
    IMAGE_BUILD_ARGS+=" --build-arg BASE_IMAGE=$name"
}

import_base_image() { # NAME
    local rootfs=$cache_dir/bookworm.tar work
    work=$(mktemp -d /var/tmp/flare-base.XXXXXX) || return
    if [ ! -f "$rootfs" ]; then
        need debootstrap debootstrap || return
        debootstrap --variant=minbase bookworm "$work/root" >"$work/log" || { tail -20 "$work/log" >&2; return 1; }
        rm -rf "$work"/root/var/{cache/apt/archives,lib/apt/lists}/* "$work"/root/usr/share/{doc,man,locale}/*
        mkdir -p "$cache_dir"
        tar -C "$work/root" -cf "$rootfs.$$" . && mv "$rootfs.$$" "$rootfs" || return
    fi
    # A machine with certificates of its own (a proxy's, say) needs them inside its builds too.
    cp "$rootfs" "$work/base.tar"
    tar -C / -rhf "$work/base.tar" usr/local/share/ca-certificates etc/ssl/certs/ca-certificates.crt
    docker import -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' "$work/base.tar" "$1" >/dev/null || return
    rm -rf "$work"
}

# Where the tests' own torch is a CPU build, the image gets the same one, not gigabytes of CUDA.
use_cpu_torch() {
    local version
    version=$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("torch"))') || return
    [[ $version == *+cpu ]] || return 0
    local wheels=("torch-$version"-*.whl)
    if [ ! -f "${wheels[0]}" ]; then
        .venv/bin/pip download -q --no-deps --dest . "torch==$version" || return
        wheels=("torch-$version"-*.whl)
        made_wheel=$PWD/${wheels[0]}
    fi
    IMAGE_BUILD_ARGS+=" --build-arg TORCH=${wheels[0]}"
}
