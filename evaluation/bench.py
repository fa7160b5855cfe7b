"""Will it make it? Runs a submission on a few scans and holds it against FLARE 2024's limits."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import nibabel
import numpy as np

from evaluation import host
from evaluation.cases import Case, find
from evaluation.errors import EvaluationError
from evaluation.scoring.assess import check
from evaluation.scoring.profiles import FLARE24
from evaluation.states import State
from evaluation.tables.markup import plain, plain_row
from evaluation.tolerances import TIME_LIMIT_S, VRAM_LIMIT_MIB
from evaluation.trial import Rig, Trial

TINY = "tiny"  # a scan with next to nothing in it: what it takes is start-up
TINY_SIZE = 32
HEAD = (
    "scan",
    "size",
    "wall s",
    "runtime s",
    "start-up",
    "peak MiB",
    "area MiB s",
    "over 4 GB",
    "verdict",
)
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of repeated measurements."""

    median: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """Return "median (low to high)"."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def bench(rig: Rig, cases: Sequence[Case], repeat: int, out: TextIO) -> bool:
    """Run every scan `repeat` times and print a table; return whether every run kept the limits.

    A scan passes when its slowest run ends within 45 s, as the organisers count (around the whole
    container), and its largest peak of GPU memory above the baseline is within 4096 MiB.
    """
    print(f"machine  {host.description()}, {rig.gpu.name if rig.gpu else 'no GPU'}", file=out)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        tiny = _tiny_case(Path(folder), channels=len(cases[0].scans))
        mask = Path(folder) / tiny.mask_name
        startup_s = _startup_s([rig.run(tiny, mask) for _ in range(repeat)], out)
        print(plain(HEAD, rows=(), words=(0, 1, 8)), file=out, flush=True)
        passed = True
        for case in cases:
            mask = Path(folder) / case.mask_name
            trials = [_judged(rig.run(case, mask), case) for _ in range(repeat)]
            line, good = _row(case, trials, startup_s)
            passed &= good
            print(line, file=out, flush=True)
    if rig.gpu is None:
        print("GPU memory was not measured: no GPU was used.", file=out)
    return passed


def _judged(trial: Trial, case: Case) -> Trial:
    """Return the trial; failed if FLARE 2024 would refuse its mask."""
    if trial.mask is None:
        return trial
    try:
        check(trial.mask, case.header, FLARE24)
    except EvaluationError as error:
        return replace(trial, state=State.BAD_OUTPUT, message=str(error))
    return trial


def _startup_s(trials: Sequence[Trial], out: TextIO) -> float | None:
    """Say and return what a run takes that has nothing to do; None when it fails on such a scan."""
    walls = [trial.outcome.wall_s for trial in trials if trial.outcome is not None]
    failed = next((trial for trial in trials if trial.state is not State.OK), None)
    if failed is not None:
        print(f"start-up {UNMEASURED}: {failed.state} on a tiny scan, {failed.message}", file=out)
        return None
    shown = spread(walls).text(2)
    print(f"start-up {shown} s: the whole of a run on a scan of {TINY_SIZE} voxels cubed", file=out)
    return statistics.median(walls)


def _row(case: Case, trials: Sequence[Trial], startup_s: float | None) -> tuple[str, bool]:
    size = " x ".join(str(n) for n in case.header.shape_zyx[::-1])
    failed = next((trial for trial in trials if trial.state is not State.OK), None)
    if failed is not None:
        why = failed.message.replace("|", "\\|")  # what it printed last may look like a table
        return plain_row([case.name, size, *[""] * 6, f"FAIL: {failed.state}, {why}"]), False
    outcomes = [trial.outcome for trial in trials if trial.outcome is not None]
    walls = spread([outcome.wall_s for outcome in outcomes])
    cells = [case.name, size, walls.text(1), spread([o.runtime_s for o in outcomes]).text(1)]
    cells.append(UNMEASURED if startup_s is None else f"{startup_s / walls.median:.0%}")
    verdict = [_verdict(walls.high <= TIME_LIMIT_S, f"time {TIME_LIMIT_S:g} s")]
    good = walls.high <= TIME_LIMIT_S
    usages = [trial.vram for trial in trials if trial.vram is not None]
    if usages:
        peaks = spread([usage.peak_vram_mib for usage in usages])
        areas = spread([usage.area_mib_s for usage in usages])
        above = statistics.median(usage.area_above_4096_mib_s for usage in usages)
        share = above / areas.median if areas.median > 0 else 0.0
        cells += [peaks.text(0), areas.text(0), f"{above:.0f} MiB s ({share:.0%})"]
        good &= peaks.high <= VRAM_LIMIT_MIB
        verdict.append(_verdict(peaks.high <= VRAM_LIMIT_MIB, "memory 4 GB"))
        if any(usage.contaminated for usage in usages):
            verdict.append("contaminated by another process")
    else:
        cells += [UNMEASURED] * 3
    return plain_row([*cells, "; ".join(verdict)]), good


def _verdict(good: bool, limit: str) -> str:
    return f"{'pass' if good else 'FAIL'}: {limit}"


def _tiny_case(folder: Path, channels: int) -> Case:
    """Write a sphere of soft tissue in air, a scan of a few voxels; the same in each channel."""
    at = np.linspace(-1.0, 1.0, TINY_SIZE)
    inside = (at[:, None, None] ** 2 + at[:, None] ** 2 + at**2) < 0.8
    voxels = np.where(inside, 50, -1000).astype(np.int16)
    scan = nibabel.Nifti1Image(voxels, np.diag([-1.5, -1.5, 3.0, 1.0]))
    (folder / "scan").mkdir()
    for channel in range(channels):
        nibabel.save(scan, folder / "scan" / f"{TINY}_{channel:04}.nii.gz")
    (case,) = find(folder / "scan")
    return case
