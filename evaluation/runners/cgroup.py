"""Control groups, version 1 and 2: what a container or a process tree uses, and limits on it.

The kernel keeps the peak of a group's memory itself, so a reading misses none of what came before
it. CPU time comes from the same group, children that have ended included.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "cpuacct", "pids")
KILL_TIMEOUT_S = 10.0

# What is read, in version 2 and in version 1.
PEAK = ("memory.peak", "memory.max_usage_in_bytes")
MEMORY_LIMIT = ("memory.max", "memory.limit_in_bytes")


@dataclass(frozen=True)
class Reading:
    """What a group has used so far; None: not measured."""

    cpu_s: float | None = None
    peak_ram_mib: float | None = None  # memory and page cache charged to the group
    oom_kills: int = 0  # by the kernel or the engine
    forks_refused: int = 0

    def after(self, earlier: "Reading") -> "Reading":
        """Return this reading with what an earlier one knew better.

        All four only grow, but a group is removed controller by controller: a reading in the
        midst of that lacks some.
        """
        return Reading(
            cpu_s=_greater(self.cpu_s, earlier.cpu_s),
            peak_ram_mib=_greater(self.peak_ram_mib, earlier.peak_ram_mib),
            oom_kills=max(self.oom_kills, earlier.oom_kills),
            forks_refused=max(self.forks_refused, earlier.forks_refused),
        )


@dataclass(frozen=True)
class Group:
    """One group: a folder for each controller (version 1), or one folder for all (version 2)."""

    memory: Path
    cpuacct: Path
    pids: Path
    version: int

    def read(self) -> Reading | None:
        """Return the group's counters; None when it is gone."""
        if self.version == 2:
            cpu = _field(self.cpuacct / "cpu.stat", "usage_usec")
            cpu_s = None if cpu is None else cpu / 1e6
            oom_kills = _field(self.memory / "memory.events", "oom_kill")
        else:
            cpu = _number(self.cpuacct / "cpuacct.usage")
            cpu_s = None if cpu is None else cpu / 1e9
            oom_kills = _field(self.memory / "memory.oom_control", "oom_kill")
        peak = _number(self.memory / self._name(PEAK))
        if cpu_s is None and peak is None:
            return None
        return Reading(
            cpu_s=cpu_s,
            peak_ram_mib=None if peak is None else peak / 2**20,
            oom_kills=oom_kills or 0,
            forks_refused=_field(self.pids / "pids.events", "max") or 0,
        )

    def limit(self, memory_mib: int, pids: int | None) -> None:
        """Limit memory (swap included) and processes; raises OSError where the kernel refuses."""
        (self.memory / self._name(MEMORY_LIMIT)).write_text(str(memory_mib * 2**20))
        swap = ("memory.swap.max", "0"), ("memory.memsw.limit_in_bytes", str(memory_mib * 2**20))
        file, value = swap[0 if self.version == 2 else 1]
        if (self.memory / file).exists():  # a kernel without swap accounting has no such file
            (self.memory / file).write_text(value)
        if pids is not None:
            (self.pids / "pids.max").write_text(str(pids))

    def entrances(self) -> list[Path]:
        """Return the files into which a process writes 0 to enter the group."""
        return [folder / "cgroup.procs" for folder in self._folders()]

    def members(self) -> set[int]:
        """Return the PIDs of the group's processes, one that has half entered included."""
        found = set()
        for folder in self._folders():
            try:
                found |= {int(line) for line in (folder / "cgroup.procs").read_text().split()}
            except OSError:
                continue
        return found - {0}  # of another PID namespace: not ours to name

    def end(self) -> None:
        """Kill whatever is left in the group and remove it."""
        deadline = time.monotonic() + KILL_TIMEOUT_S
        kill(self.members())
        while not self._removed() and time.monotonic() < deadline:
            # The kernel has not let go of its last process yet, or another has entered.
            time.sleep(0.005)
            kill(self.members())

    def _removed(self) -> bool:
        for folder in self._folders():
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True

    def _folders(self) -> list[Path]:
        return list(dict.fromkeys((self.memory, self.cpuacct, self.pids)))

    def _name(self, names: tuple[str, str]) -> str:
        return names[0 if self.version == 2 else 1]


def of_process(pid: int) -> Group | None:
    """Return the group of a process; None when it has ended or has none that can be seen."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    paths = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path.lstrip("/")))
    group = _at(lambda controller: paths.get(controller, ""))
    # The root group is the whole machine's: a process there has no group of its own.
    roots = {ROOT, *(ROOT / name for name in CONTROLLERS)}
    own = all(folder not in roots and folder.is_dir() for folder in group._folders())
    return group if own else None


def create(name: str) -> Group | None:
    """Make an empty group beneath the root; None where this system does not allow it."""
    group = _beneath(name)
    try:
        for folder in group._folders():
            folder.mkdir()
        # Version 2 gives a group no files of controllers that its parent has not handed down.
        complete = (group.memory / group._name(MEMORY_LIMIT)).exists()
    except OSError:
        complete = False
    if not complete:
        group.end()
        return None
    return group


def existing(prefix: str) -> list[Group]:
    """Return the groups beneath the root whose names start with `prefix`."""
    folders = [ROOT] if _unified() else [ROOT / controller for controller in CONTROLLERS]
    names = {path.name for folder in folders for path in folder.glob(f"{prefix}*")}
    return [_beneath(name) for name in sorted(names)]


def kill(pids: Iterable[int]) -> None:
    """Send SIGKILL to each process that is still there."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _at(path: Callable[[str], str]) -> Group:
    """Return the group at these paths beneath the root, one a controller ("" in version 2)."""
    if _unified():
        folder = ROOT / path("")
        return Group(folder, folder, folder, version=2)
    memory, cpuacct, pids = (ROOT / name / path(name) for name in CONTROLLERS)
    return Group(memory, cpuacct, pids, version=1)


def _beneath(name: str) -> Group:
    return _at(lambda _: name)


def _unified() -> bool:
    """Say whether control groups are of version 2."""
    return (ROOT / "cgroup.controllers").exists()


def _greater(first: float | None, second: float | None) -> float | None:
    return max((value for value in (first, second) if value is not None), default=None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), None)
