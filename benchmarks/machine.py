"""What a benchmark says about where it ran, and how it measures a command from outside."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """A finished command: wall time, peak memory of its process tree (PSS), what it printed."""

    wall_s: float
    peak_mib: float
    output: str


def description() -> str:
    """CPU, cores and memory of this machine."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB, no GPU"


def measure(command: Sequence[str | Path], env: dict[str, str] | None = None) -> Run:
    """Run a command cold; raises RuntimeError with the end of its output if it fails.

    Memory is the proportional set size, summed over the process and its descendants every 50 ms:
    pages that processes share count once.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(c) for c in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )
    peak_kib = 0
    done = threading.Event()

    def sample() -> None:
        nonlocal peak_kib
        while not done.wait(0.05):
            peak_kib = max(peak_kib, sum(_pss_kib(p) for p in _tree(process.pid)))

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, _ = process.communicate()
    wall_s = time.perf_counter() - start
    done.set()
    sampler.join()
    if process.returncode:
        raise RuntimeError(f"{command[0]} exited {process.returncode}: {output[-2000:]}")
    return Run(wall_s, peak_kib / 1024, output)


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
