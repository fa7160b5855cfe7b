"""What a stranger's container may try, as shell scripts: one a case, named after it.

A probe prints BROKEN where it got what it must not have. `state` is what the case must come to, and
`says` what its message must have in it. The reference's folder is never told; a script knows its
own case's name as $case and writes its mask to $mask.
"""

from dataclasses import dataclass

TRIED, BROKEN = "tried", "BROKEN"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Attack:
    """One attack; the usual one leaves no mask."""

    script: str
    state: str = "no_output"
    says: str = ""


def probe(command: str) -> Attack:
    """An attack that has worked if a command ends well."""
    return Attack(f"if {command}; then echo {BROKEN}; fi")


def connects(address: str, port: int) -> Attack:
    """A connection that must not come about."""
    return probe(
        "perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => "
        f'"{address}", PeerPort => {port}, Timeout => 2)\''
    )


RIGHTS = {
    "mount_tmpfs": probe("mount -t tmpfs none /mnt"),
    "remount_inputs": probe("mount -o remount,rw /workspace/inputs"),
    "bind_mount": probe("mount --bind / /mnt"),
    "make_device": probe("mknod /tmp/disk b 8 0"),
    "read_disk": probe("head -c 1 /dev/sda || head -c 1 /dev/vda || head -c 1 /dev/nvme0n1"),
    "read_memory": probe("head -c 1 /dev/mem || head -c 1 /proc/kcore"),
    "core_pattern": probe("echo '|/tmp/x' > /proc/sys/kernel/core_pattern"),
    "sysrq": probe("echo h > /proc/sysrq-trigger"),
    "panic_setting": probe("echo 1 > /proc/sys/kernel/panic"),
    "kernel_log": probe("dmesg --clear"),
    "load_module": probe("perl -e 'exit !(syscall(175, 0, 0, \"\") == 0)'"),
    "user_namespace": probe("unshare --user --map-root-user true"),
    "mount_namespace": probe("unshare --mount true"),
    "enter_init": probe("nsenter --target 1 --mount --net true"),
    "chroot": probe("chroot /proc/1/root true"),
    "setuid": Attack(
        f"cp /bin/sh /tmp/root; chmod u+s /tmp/root; if grep -q 'NoNewPrivs:.*0' /proc/self/status;"
        f" then echo {BROKEN}; fi"
    ),
    "capabilities": probe("grep -q 'CapEff:.*[1-9a-f]' /proc/self/status"),
    "change_owner": probe("touch /tmp/file && chown 1234 /tmp/file"),
    "host_name": probe("hostname stranger"),
    "clock": probe("date --set '2001-01-01'"),
    "priority": probe("nice -n -20 true 2>&1 | grep -q . ; nice -n -5 sh -c 'test $(nice) -lt 0'"),
    "out_of_memory_score": probe("echo -1000 > /proc/self/oom_score_adj"),
    "control_group": Attack(
        "for file in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max"
        " /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; do"
        f" if echo 999999999999 > $file; then echo {BROKEN}; fi; done"
    ),
    "release_agent": probe(
        "ls /sys/fs/cgroup/*/release_agent && echo /tmp/x > $(ls /sys/fs/cgroup/*/release_agent)"
    ),
    "new_control_group": probe("mkdir /sys/fs/cgroup/memory/mine || mkdir /sys/fs/cgroup/mine"),
    "engine_socket": probe("ls /var/run/docker.sock /run/podman/podman.sock"),
}
INPUTS = {
    "write_input": probe('echo x > "inputs/$(ls inputs | head -1)"'),
    "append_input": probe('echo x >> "inputs/$(ls inputs | head -1)"'),
    "remove_input": probe('rm -f "inputs/$(ls inputs | head -1)"'),
    "rename_input": probe('mv "inputs/$(ls inputs | head -1)" inputs/other'),
    "mode_of_input": probe('chmod 777 "inputs/$(ls inputs | head -1)"'),
    "time_of_input": probe('touch "inputs/$(ls inputs | head -1)"'),
    "new_input": probe("touch inputs/other"),
    "link_to_input": probe('ln "inputs/$(ls inputs | head -1)" outputs/scan'),
    "other_cases": probe("test $(ls inputs | wc -l) -ne 1"),
    "find_labels": probe("find / -xdev -name '*label*.nii*' -o -xdev -name SECRET | grep -q ."),
    "mounts_tell": probe("grep -Eq 'SECRET|results|labels|scans' /proc/self/mountinfo"),
    "environment_tells": probe("env | grep -Eiq 'secret|proxy|docker|token'"),
    "parents_environment": probe("tr '\\0' '\\n' < /proc/1/environ | grep -Eiq 'secret|proxy'"),
    "other_processes": probe("test $(ls /proc | grep -c '^[0-9]') -gt 12"),
    "kept_root_1": Attack("echo left > /workspace/left; echo left > /var/tmp/left"),
    "kept_root_2": probe("ls /workspace/left || ls /var/tmp/left"),
    "kept_shared_1": Attack("echo left > /tmp/left; echo left > /dev/shm/left"),
    "kept_shared_2": probe("ls /tmp/left || ls /dev/shm/left"),
}
NETWORK = {
    "internet": connects("1.1.1.1", 53),
    "gateway": connects("172.17.0.1", 22),
    "cloud_metadata": connects("169.254.169.254", 80),
    "interfaces": probe("grep -v -e lo: -e Inter- -e face /proc/net/dev | grep -q ."),
    "raw_socket": probe("perl -MSocket -e 'exit !socket(S, PF_INET, SOCK_RAW, 1)'"),
    "packet_socket": probe("perl -e 'exit !socket(S, 17, 3, 768)'"),
    "names": probe("getent hosts example.org"),
}
RESOURCES = {
    "fork_bomb": Attack("bomb() { bomb | bomb & }; bomb; sleep 60", "*"),
    "memory": Attack("exec tail /dev/zero", "oom_ram"),
    "memory_in_tmp": Attack("head -c 400M /dev/zero > /tmp/fill; sleep 30", "*"),
    "memory_in_shm": Attack("head -c 400M /dev/zero > /dev/shm/fill; sleep 1", "*"),
    "endless": Attack("while :; do :; done", "timeout"),
    "deaf": Attack("trap '' TERM INT HUP; while :; do sleep 1; done", "timeout"),
    "stopped": Attack("kill -STOP $$; sleep 60", "timeout"),
    "left_behind": Attack("setsid sleep 997 & exit 0"),
    "kill_all": Attack("kill -9 -1; sleep 60", "*"),
    "endless_log": Attack("yes everything", "timeout"),
    "escapes": Attack("printf '\\033]0;owned\\007\\033[2J\\r\\nfake line'; exit 3", "nonzero_exit"),
    "no_newline": Attack("head -c 3000000 /dev/zero | tr '\\0' x; exit 3", "nonzero_exit"),
    "closed_output": Attack("exec >&- 2>&-; sleep 60", "timeout"),
}
OUTPUTS = {
    "mask_is_link_out": Attack("ln -s /etc/passwd $mask", says="not a regular file"),
    "mask_is_link_to_scan": Attack("ln -s ../inputs/$(ls inputs) $mask", says="not a regular file"),
    "mask_is_link_to_host": Attack(
        "ln -s /SECRET/labels/a.nii.gz $mask", says="not a regular file"
    ),
    "mask_is_pipe": Attack("mkfifo $mask", says="not a regular file"),
    "mask_is_folder": Attack("mkdir $mask", says="not a regular file"),
    "mask_is_socket": Attack(
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1)' $mask",
        says="not a regular file",
    ),
    "mask_is_unreadable": Attack("cp inputs/* $mask; chmod 000 $mask", "*"),
    "mask_is_endless": Attack("truncate -s 1T $mask", "*"),
    "mask_is_a_bomb": Attack("head -c 200M /dev/zero | gzip > $mask", "bad_output"),
    "mask_is_empty": Attack(": > $mask", "bad_output"),
    "mask_is_text": Attack("echo '<script>alert(1)</script>' > $mask", "bad_output"),
    "mask_is_the_scan": Attack("cp inputs/* $mask", "bad_output"),
    "outputs_are_locked": Attack("cp inputs/* $mask; chmod 000 outputs", "*"),
    "outputs_are_gone": Attack("rm -rf outputs; ln -s /etc outputs", "*"),
    "deep_folders": Attack(
        'perl -e \'chdir "outputs"; for (1 .. 400) { mkdir "d" x 16; chdir "d" x 16 }\'',
        "bad_output",
        "nested deeper",
    ),
    "odd_names": Attack(
        "cd outputs; touch \"$(printf 'a\\nb\\033[2J')\" \"$(printf '\\377\\376')\""
    ),
    "many_files": Attack("cd outputs; for i in $(seq 1500); do : > $i; done; sleep 60", "*"),
    "setuid_left": Attack("cp /bin/sh outputs/sh; chmod 6777 outputs/sh"),
}
ATTACKS = RIGHTS | INPUTS | NETWORK | RESOURCES | OUTPUTS
