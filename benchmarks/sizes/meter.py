"""What a cold process costs: wall time, peak memory, and on a GPU peak and area of its memory."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.machine import Launch, launch
from benchmarks.programs import Command
from evaluation.gpu.curve import BASELINE_S, Baseline, baseline, measure
from evaluation.gpu.curve_file import write_curve
from evaluation.gpu.devices import Gpu
from evaluation.gpu.processes import GpuProcess, contamination, foreign
from evaluation.gpu.sampler import INTERVAL_S, Sampler


class CommandFailed(Exception):
    """A command ended badly; one line of why."""


@dataclass(frozen=True)
class Cost:
    """What one run took. VRAM is net of the baseline, its peak a lower bound; None: no GPU.

    peak_rss_mib: of the largest process of the tree. notes: what else was on the GPU.
    """

    wall_s: float
    peak_rss_mib: float
    peak_vram_mib: float | None = None
    area_mib_s: float | None = None
    notes: tuple[str, ...] = ()


class Meter:
    """Runs commands one at a time; as a context manager it samples the GPU, if there is one.

    folder: for the logs of the runs (logs/) and the GPU's samples (curves/).
    """

    def __init__(self, gpu: Gpu | None, folder: Path) -> None:
        self._gpu, self._folder = gpu, folder
        self._sampler: Sampler | None = None
        self._quiet_s = 0.0  # since when the GPU is sampled and nothing of ours is on it

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._gpu is not None:
            self._samples = Path(tempfile.mkdtemp(prefix="gpu-", dir=self._folder))
            self._sampler = Sampler(self._gpu.uuid, self._samples, interval_s=INTERVAL_S)
            self._sampler.start()
            self._quiet_s = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self._sampler is not None:
            self._sampler.stop()
            shutil.rmtree(self._samples, ignore_errors=True)

    def run(
        self, name: str, command: Command, env: Mapping[str, str], folder: Path
    ) -> tuple[Cost, str]:
        """Run a command in `folder`; return what it took and what it printed.

        Raises CommandFailed; GpuLost and EvaluationError when the GPU cannot be measured.
        """
        if self._sampler is not None:  # let the baseline's second pass
            time.sleep(max(0.0, self._quiet_s + BASELINE_S - time.monotonic()))
            self._sampler.check()
        log = self.log_of(name)
        log.parent.mkdir(exist_ok=True)
        # The one that is sampled, by whatever number CUDA knows it.
        sees = {"CUDA_VISIBLE_DEVICES": self._gpu.uuid if self._gpu else ""}
        launched = launch(command, log, {**sees, **env}, folder)
        printed = log.read_text(errors="replace")
        if launched is None:
            raise CommandFailed(f"could not be started: {_last_line(printed)}")
        cost = self._cost(name, launched)
        if launched.exit_code:
            raise CommandFailed(f"exit code {launched.exit_code}: {_last_line(printed)}")
        return cost, printed

    def log_of(self, name: str) -> Path:
        """Where a run's output goes."""
        return self._folder / "logs" / f"{name}.log"

    def _cost(self, name: str, launched: Launch) -> Cost:
        start_s, finish_s = launched.start_s, launched.finish_s
        wall_s, peak_rss_mib = finish_s - start_s, launched.peak_rss_mib
        sampler = self._sampler
        if sampler is None:
            return Cost(wall_s, peak_rss_mib)
        before = baseline(sampler.curve(start_s - BASELINE_S, start_s), start_s)
        sampler.wait_for_baseline(before.mib, finish_s)
        until_s = self._quiet_s = time.monotonic()
        curve = sampler.curve(start_s - BASELINE_S, until_s)
        write_curve(self._folder / "curves" / f"{name}.csv.gz", curve, start_s)
        usage = measure(curve, start_s, finish_s, before)
        seen = sampler.processes(start_s - BASELINE_S, finish_s)
        notes = others(seen, start_s, os.getsid(0), before)
        return Cost(wall_s, peak_rss_mib, usage.peak_mib, usage.area_mib_s, tuple(notes))


def others(seen: list[GpuProcess], start_s: float, session: int, before: Baseline) -> list[str]:
    """Why a measurement is not the run's alone: what came before it, or from another session.

    A session that cannot be known (another PID namespace) is taken for ours.
    """

    def owned(process: GpuProcess) -> bool:
        return process.first_seen_s >= start_s and process.session in (None, session)

    return contamination(foreign(seen, owned), before)


def _last_line(printed: str) -> str:
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return (lines or ["it printed nothing"])[-1][:300]
