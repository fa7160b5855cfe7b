"""What a benchmark says about where it ran, and how it measures a command from outside."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from evaluation import host


@dataclass(frozen=True)
class Run:
    """A finished command: wall time and what it printed."""

    wall_s: float
    output: str


@dataclass(frozen=True)
class MeasuredRun(Run):
    """The same, with the most memory that the process had resident."""

    peak_rss_mib: float


def description() -> str:
    """CPU, cores and memory of this machine."""
    return f"{host.description()}, no GPU used"


def timed(command: Sequence[str | Path], env: dict[str, str] | None = None) -> Run:
    """Run a command cold; raises RuntimeError with the end of its output if it fails."""
    start = time.perf_counter()
    with _start(command, env) as process:
        output, _ = process.communicate()
    wall_s = time.perf_counter() - start
    _check(process, output)
    return Run(wall_s, output)


def measured(command: Sequence[str | Path], env: dict[str, str] | None = None) -> MeasuredRun:
    """Run a command cold: wall time and peak resident memory, which costs it nothing, in one run.

    The peak is that of the largest of its processes, shared pages included. A new process inherits
    the peak of the one that starts it: raises RuntimeError if it cannot be told from this one's, or
    as `timed` does.
    """
    ours_kib = _own_peak_kib()
    start = time.perf_counter()
    with _start(command, env) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - start
    _check(process, output)
    if usage.ru_maxrss <= ours_kib:
        raise RuntimeError(
            f"peak memory of {process.args!r} is hidden by that of this process, "
            f"{ours_kib / 1024:.0f} MiB; start it from a smaller one"
        )
    return MeasuredRun(wall_s, output, usage.ru_maxrss / 1024)


def peak_mib(command: Sequence[str | Path], env: dict[str, str] | None = None) -> float:
    """Peak memory of a command's process tree: the proportional set size, sampled at 10 Hz.

    Pages that processes share count once. Reading it slows the command down: never time this run.
    """
    peak_kib = 0
    with tempfile.TemporaryFile("w+") as output:
        process = _start(command, env, output)
        while process.poll() is None:
            peak_kib = max(peak_kib, sum(_pss_kib(p) for p in _tree(process.pid)))
            time.sleep(0.1)
        output.seek(0)
        _check(process, output.read())
    return peak_kib / 1024


def _own_peak_kib() -> int:
    (kib,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib)


def _start(
    command: Sequence[str | Path],
    env: dict[str, str] | None,
    output: IO[str] | int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(c) for c in command],
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )


def _check(process: subprocess.Popen[str], output: str) -> None:
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {process.args!r}: {output[-2000:]}")


def _tree(pid: int) -> list[int]:
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        try:
            for children in Path(f"/proc/{current}/task").glob("*/children"):
                todo += [int(c) for c in children.read_text().split()]
        except OSError:  # it has ended
            continue
    return found


def _pss_kib(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(li.split()[1]) for li in rollup.splitlines() if li.startswith("Pss:")), 0)
