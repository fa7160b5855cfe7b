# shellcheck shell=bash
# Sourced by .ci/run after engine.sh, whose base image it takes: Debian's Podman beside Docker.
#
#   podman_up        starts a Podman of root's, with storage of its own; exports PODMAN_HOST
#   rootless ARGS... runs Python as a new user who has a Podman and nothing else, in this folder
#   podman_down      stops that Podman and removes its data

podman_dir=
podman_pid=

podman_up() {
    need podman podman && need catatonit catatonit && need newuidmap uidmap && need slirp4netns slirp4netns || return
    podman_dir=$(mktemp -d /var/tmp/flare-podman.XXXXXX) && chmod 711 "$podman_dir" || return
    # Debian's defaults want systemd, and more open files than a container may have.
    printf '%s\n' '[containers]' 'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]' \
        '[engine]' 'runtime = "runc"' 'cgroup_manager = "cgroupfs"' 'events_logger = "file"' \
        >"$podman_dir/containers.conf"
    export CONTAINERS_CONF=$podman_dir/containers.conf
    export PODMAN_HOST=unix://$podman_dir/podman.sock
    # In a folder of its own: conmon leaves a file there for every container that runs out of memory.
    (cd "$podman_dir" && exec podman --root "$podman_dir/data" --runroot "$podman_dir/run" \
        system service --time=0 "$PODMAN_HOST") \
        >"$podman_dir/log" 2>&1 </dev/null &
    podman_pid=$!
    await_podman "$PODMAN_HOST" "$podman_dir/log"
}

podman_down() {
    [ -n "$podman_dir" ] || return 0
    kill "$podman_pid" && wait "$podman_pid" || true
    umount "$podman_dir/data/overlay" 2>/dev/null || true
    rm -rf "$podman_dir"
    unset PODMAN_HOST CONTAINERS_CONF
    podman_dir='' podman_pid=''
}

rootless() { # ARGUMENTS of Python
    local user=flare-$$ home=$podman_dir/home pid status=0
    python_for_anyone "$podman_dir/checkout" || return
    useradd --create-home --home-dir "$home" "$user" || return
    install -d -m 700 -o "$user" "$home/run"
    install -d "$podman_dir/checkout"
    local host=unix://$home/podman.sock
    local as=(setpriv --reuid "$user" --regid "$user" --init-groups env "HOME=$home" "XDG_RUNTIME_DIR=$home/run")
    (cd "$home" && exec "${as[@]}" podman --storage-driver overlay system service --time=0 "$host") \
        >"$podman_dir/rootless.log" 2>&1 </dev/null &
    pid=$!
    # The checkout may be in a folder that is root's alone: it is mounted where the user can go.
    await_podman "$host" "$podman_dir/rootless.log" \
        && unshare --mount sh -c 'mount --bind "$0" "$1" && cd "$1" && shift && exec "$@"' "$PWD" "$podman_dir/checkout" \
            "${as[@]}" "DOCKER_HOST=$host" "PODMAN_HOST=$host" "$podman_dir/python/bin/python" "$@" || status=$?
    kill "$pid" "$(cat "$home/run/libpod/tmp/pause.pid")" && wait "$pid" || true
    userdel --remove "$user" 2>/dev/null || true
    return "$status"
}

# Debian's own, with what `make install` has installed: that one may be made of a Python in root's home.
python_for_anyone() { # CHECKOUT
    local packages
    /usr/bin/python3.11 -m venv --without-pip "$podman_dir/python" || return
    packages=$(.venv/bin/python -c 'import os, sysconfig; print(os.path.relpath(sysconfig.get_path("purelib")))')
    echo "$1/$packages" >"$podman_dir/python/lib/python3.11/site-packages/installed.pth"
}

await_podman() { # HOST LOG
    local image
    for _ in $(seq 30); do
        docker --host "$1" info >/dev/null 2>&1 && break
        sleep 1
    done
    # Podman gives what it loads a registry of its own, "localhost".
    image=$(docker save "$base_image" | docker --host "$1" load | sed -n 's/^Loaded image: //p') \
        && docker --host "$1" tag "$image" "$base_image" && return
    echo "Podman does not start; the end of its log:" >&2
    tail -20 "$2" >&2
    return 1
}
