# shellcheck shell=bash
# Sourced by .ci/run after .ci/engine.sh, whose `need` it uses. Gives the tests a Slurm of one node, this machine.
#
#   slurm_up    uses the Slurm that answers, or else installs (Debian) and starts one; exports SLURM_CONF
#   slurm_down  stops what slurm_up started

slurm_dir=
slurm_pids=()

slurm_up() {
    sinfo >/dev/null 2>&1 && return
    need munged munge && need slurmctld slurmctld && need slurmd slurmd && need sinfo slurm-client || return
    slurm_dir=$(mktemp -d /var/tmp/flare-slurm.XXXXXX) || return
    export SLURM_CONF=$slurm_dir/slurm.conf
    # linuxproc, task/none: a container has no control groups to give away.
    cat >"$SLURM_CONF" <<END
ClusterName=flare
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
StateSaveLocation=$slurm_dir/state
SlurmdSpoolDir=$slurm_dir/spool
SlurmctldPidFile=$slurm_dir/slurmctld.pid
SlurmdPidFile=$slurm_dir/slurmd.pid
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc)
PartitionName=all Nodes=ALL Default=YES
END
    mkdir -p "$slurm_dir/state" /run/munge
    chown munge: /run/munge /etc/munge /var/lib/munge /var/log/munge
    runuser -u munge -- munged --foreground >"$slurm_dir/munged.log" 2>&1 &
    slurm_pids+=($!)
    local daemon
    for daemon in slurmctld slurmd; do
        "$daemon" -D >"$slurm_dir/$daemon.log" 2>&1 </dev/null &
        slurm_pids+=($!)
    done
    for _ in $(seq 60); do
        sinfo --noheader --format=%T 2>/dev/null | grep -q idle && return
        sleep 1
    done
    echo "Slurm does not start; the end of its logs:" >&2
    tail -n 10 "$slurm_dir"/*.log >&2
    return 1
}

slurm_down() {
    [ -n "$slurm_dir" ] || return 0
    kill "${slurm_pids[@]}" && wait "${slurm_pids[@]}" || true
    rm -rf "$slurm_dir"
    slurm_dir='' slurm_pids=()
    unset SLURM_CONF
}
