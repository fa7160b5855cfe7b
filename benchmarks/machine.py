"""What a benchmark says about where it ran, and how it measures a command from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation import host
from evaluation.gpu.devices import Gpu
from evaluation.runners.processes import descendants

_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Run:
    """A finished command; its peak is the resident memory of the largest of its processes."""

    wall_s: float
    cpu_s: float
    output: str
    peak_rss_mib: float


@dataclass(frozen=True)
class Launch:
    """What launch.py says of a command: monotonic stamps, processor time, peak, exit code."""

    start_s: float
    finish_s: float
    cpu_s: float
    peak_rss_mib: float
    exit_code: int


def description(gpu: Gpu | None = None) -> str:
    """CPU, cores and memory of this machine, and the GPU that is used."""
    used = f"{gpu.name}, driver {gpu.driver}" if gpu else "no GPU used"
    return f"{host.description()}, {used}"


def measured(command: Sequence[str | Path], env: Mapping[str, str]) -> Run:
    """Run a command cold; raises RuntimeError with the end of its output if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        found = launch(command, log, env)
        output = log.read_text(errors="replace")
    if found is None or found.exit_code:
        code = "not started" if found is None else f"exit code {found.exit_code}"
        raise RuntimeError(f"{code} of {[str(c) for c in command]!r}: {output[-2000:]}")
    return Run(found.finish_s - found.start_s, found.cpu_s, output, found.peak_rss_mib)


def launch(
    command: Sequence[str | Path], log: Path, env: Mapping[str, str], folder: Path | None = None
) -> Launch | None:
    """Run a command in `folder` by launch.py, what it prints going into `log`.

    Returns None if it could not be started; `log` says why.
    """
    with tempfile.TemporaryDirectory() as temporary, log.open("wb") as output:
        result = Path(temporary) / "launched.json"
        subprocess.run(
            [sys.executable, "-I", _LAUNCH, result, *(str(c) for c in command)],
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return Launch(**json.loads(result.read_text())) if result.exists() else None


def peak_mib(command: Sequence[str | Path], env: Mapping[str, str]) -> float:
    """Peak memory of a command's process tree: the proportional set size, sampled at 10 Hz.

    Pages that processes share count once. Reading it slows the command down: never time this run.
    Raises RuntimeError if it fails.
    """
    peak_kib, words = 0, [str(c) for c in command]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, env={**os.environ, **env}) as process:
        while process.poll() is None:
            peak_kib = max(peak_kib, sum(_pss_kib(pid) for pid in descendants(process.pid)))
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {words!r}")
    return peak_kib / 1024


def _pss_kib(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(li.split()[1]) for li in rollup.splitlines() if li.startswith("Pss:")), 0)
