"""The processes of a submission where no control group holds them together.

A variable in the environment is inherited by every descendant, whatever session or parent it ends
up with. In a container that is not needed: there its first process is an ancestor of all.
"""

import os
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from evaluation.runners.cgroup import KILL_TIMEOUT_S, kill

SAMPLED = "anonymous memory at 5 Hz"
SAMPLE_INTERVAL_S = 0.2  # reading every process's environment takes some milliseconds


class Tree:
    """Processes that belong together; `members` finds those that there are at the moment.

    in_memory: folders of theirs, each a file system in memory.
    """

    def __init__(
        self, members: Callable[[], Collection[int]], in_memory: Sequence[Path] = ()
    ) -> None:
        self._members, self._in_memory = members, in_memory
        self._sampled_s = -float("inf")
        self._memory_mib = 0.0
        self.peak_mib = 0.0

    def memory_mib(self) -> float:
        """Return the memory of processes and files together, read 5 times a second at most."""
        now = time.monotonic()
        if now - self._sampled_s >= SAMPLE_INTERVAL_S:
            self._sampled_s = now
            self._memory_mib = sum(_anonymous_mib(pid) for pid in self._members())
            self._memory_mib += sum(_held_mib(folder) for folder in self._in_memory)
            self.peak_mib = max(self.peak_mib, self._memory_mib)
        return self._memory_mib

    def end(self) -> None:
        """Kill all of them, and what they start meanwhile."""
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while (left := self._members()) and time.monotonic() < deadline:
            kill(left)
            time.sleep(0.005)


def with_variable(name: str) -> dict[int, str]:
    """Return {PID: value} of the processes whose environment has this variable and can be read."""
    key = f"{name}=".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        for variable in variables:
            if variable.startswith(key):
                found[int(folder.name)] = variable[len(key) :].decode(errors="replace")
    return found


def descendants(first: int) -> set[int]:
    """Return the PIDs of a process and of all that descend from it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := stat_fields(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, left = set(), [first]
    while left:
        found.add(pid := left.pop())
        left += children.get(pid, [])
    return found


def stat_fields(pid: int) -> list[str] | None:
    """Return what /proc/PID/stat says after the name, state first; None when there is no such."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _held_mib(folder: Path) -> float:
    try:
        facts = os.statvfs(folder)
    except OSError:  # its processes have ended
        return 0.0
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize / 2**20


def _anonymous_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    kib = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:"))]
    return sum(kib) / 1024
