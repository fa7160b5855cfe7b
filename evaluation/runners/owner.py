"""Marks what a harness leaves in the system, so that a later one knows whether it is an orphan."""

import os
import socket
from pathlib import Path

from evaluation.runners.processes import stat_fields


def token() -> str:
    """Return a name for the running process that no other process has had or will have."""
    return ":".join((*_here(), str(os.getpid()), _start_ticks(os.getpid()) or "0"))


def is_dead(owner: str) -> bool:
    """Say whether the process with this token has ended; False where that cannot be known.

    It cannot for a process of another machine or another PID namespace (a container).
    """
    try:
        host, boot, namespace, pid, ticks = owner.split(":")
    except ValueError:
        return False
    our_host, our_boot, our_namespace = _here()
    if host != our_host:
        return False
    if boot != our_boot:
        return True
    return namespace == our_namespace and _start_ticks(int(pid)) != ticks


def _here() -> tuple[str, str, str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return socket.gethostname(), boot, namespace


def _start_ticks(pid: int) -> str | None:
    fields = stat_fields(pid)
    # A zombie has ended as far as we are concerned: it starts and removes nothing more.
    return None if fields is None or fields[0] == "Z" else fields[19]
