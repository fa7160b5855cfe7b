"""Processes of this machine, found by a variable in their environment.

A variable is inherited by every descendant, whatever session or parent it ends up with, so it marks
the processes of a submission where no container holds them together.
"""

import time
from pathlib import Path

from evaluation.runners.cgroup import KILL_TIMEOUT_S, kill

SAMPLE_INTERVAL_S = 0.2  # reading every process's environment takes some milliseconds


class Tree:
    """The processes whose variable has one value."""

    def __init__(self, variable: str, value: str) -> None:
        self._variable, self._value = variable, value
        self._sampled_s = -float("inf")
        self._memory_mib = 0.0
        self.peak_mib = 0.0

    def memory_mib(self) -> float:
        """Return the anonymous memory of all processes together, read 5 times a second at most."""
        now = time.monotonic()
        if now - self._sampled_s >= SAMPLE_INTERVAL_S:
            self._sampled_s = now
            self._memory_mib = sum(_anonymous_mib(pid) for pid in self._members())
            self.peak_mib = max(self.peak_mib, self._memory_mib)
        return self._memory_mib

    def end(self) -> None:
        """Kill all of them, and what they start meanwhile."""
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while (left := self._members()) and time.monotonic() < deadline:
            kill(left)
            time.sleep(0.005)

    def _members(self) -> list[int]:
        return [pid for pid, value in with_variable(self._variable).items() if value == self._value]


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


def _anonymous_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    kib = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:"))]
    return sum(kib) / 1024
