"""Runs a submission on a few scans and holds it against a challenge's limits."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np

from evaluation import host
from evaluation.cases import Case, find
from evaluation.challenges import CaseLimits, as_gb
from evaluation.errors import EvaluationError
from evaluation.record import Vram
from evaluation.scoring.assess import check
from evaluation.scoring.rules import ScoringRules
from evaluation.states import State
from evaluation.tables.markup import in_markdown, markdown_row, markdown_table
from evaluation.trial import MeasuredRunner, Trial
from volumes import nifti
from volumes.grid import Grid
from volumes.text import one_line

TINY = "tiny"  # a scan with next to nothing in it: what it takes is start-up
TINY_SIZE = 32
UNMEASURED, UNLIMITED = "not measured", "no limit"


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


def bench(runner: MeasuredRunner, cases: Sequence[Case], repeat: int, out: TextIO) -> bool:
    """Run every scan `repeat` times and print a table; return whether every run kept the limits.

    A scan passes when its slowest run ends within the challenge's limit of time, as the organisers
    count (around the whole container), and its largest peak of GPU memory above the baseline is
    within the limit of that.
    """
    challenge, gpu = runner.conditions.challenge, runner.gpu
    for remark in (remark for case in cases for remark in case.remarks):
        print(one_line(f"notice   {remark}"), file=out)
    print(f"machine  {host.description()}, {gpu.name if gpu else 'no GPU'}", file=out)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        tiny = _tiny_case(Path(folder), channels=len(cases[0].scans))
        mask = Path(folder) / tiny.mask_name
        startup_s = _startup_s([runner.run(tiny, mask) for _ in range(repeat)], out)
        print(
            markdown_table(_head(challenge.limits), rows=(), words=(0, 1, 8)), file=out, flush=True
        )
        passed = True
        for case in cases:
            mask = Path(folder) / case.mask_name
            runs = (runner.run(case, mask) for _ in range(repeat))
            trials = [_judged(trial, case, challenge.scoring) for trial in runs]
            line, good = _row(case, trials, startup_s, challenge.limits)
            passed &= good
            print(line, file=out, flush=True)
    if gpu is None:
        print("GPU memory was not measured: no GPU was used.", file=out)
    return passed


def _head(limits: CaseLimits) -> tuple[str, ...]:
    limit = "the limit" if limits.vram_mib is None else as_gb(limits.vram_mib)
    times = ("wall s", "runtime s", "start-up")
    return ("scan", "size", *times, "peak MiB", "area MiB s", f"over {limit}", "verdict")


def _judged(trial: Trial, case: Case, rules: ScoringRules) -> Trial:
    """Return the trial; failed if the challenge would refuse its mask."""
    if trial.mask is None:
        return trial
    try:
        check(trial.mask, case.grid, rules)
    except EvaluationError as error:
        return replace(trial, state=State.BAD_OUTPUT, message=str(error))
    return trial


def _startup_s(trials: Sequence[Trial], out: TextIO) -> float | None:
    """Say and return what a run takes that has nothing to do; None when it fails on such a scan."""
    walls = [trial.outcome.wall_s for trial in trials if trial.outcome is not None]
    failed = next((trial for trial in trials if trial.state is not State.OK), None)
    if failed is not None:
        why = f"{failed.state} on a tiny scan, {failed.message}"
        print(one_line(f"start-up {UNMEASURED}: {why}"), file=out)
        return None
    shown = spread(walls).text(2)
    print(f"start-up {shown} s: the whole of a run on a scan of {TINY_SIZE} voxels cubed", file=out)
    return statistics.median(walls)


def _row(
    case: Case, trials: Sequence[Trial], startup_s: float | None, limits: CaseLimits
) -> tuple[str, bool]:
    name, size = in_markdown(case.name), " x ".join(str(n) for n in case.grid.shape_zyx[::-1])
    failed = next((trial for trial in trials if trial.state is not State.OK), None)
    if failed is not None:
        verdict = f"FAIL: {failed.state}, {in_markdown(failed.message)}"
        return markdown_row([name, size, *[""] * 6, verdict]), False
    outcomes = [trial.outcome for trial in trials if trial.outcome is not None]
    walls = spread([outcome.wall_s for outcome in outcomes])
    cells = [name, size, walls.text(1), spread([o.runtime_s for o in outcomes]).text(1)]
    cells.append(UNMEASURED if startup_s is None else f"{startup_s / walls.median:.0%}")
    kept = {}  # by limit
    if limits.time_s is not None:
        kept[f"time {limits.time_s:g} s"] = walls.high <= limits.time_s
    usages = [trial.vram for trial in trials if trial.vram is not None]
    if usages:
        peaks = spread([usage.peak_vram_mib for usage in usages])
        areas = spread([usage.area_mib_s for usage in usages])
        cells += [peaks.text(0), areas.text(0), _above(usages, areas.median)]
        if limits.vram_mib is not None:
            kept[f"memory {as_gb(limits.vram_mib)}"] = peaks.high <= limits.vram_mib
    else:
        cells += [UNMEASURED] * 3
    verdicts = [f"{'pass' if good else 'FAIL'}: {limit}" for limit, good in kept.items()]
    if any(usage.contaminated for usage in usages):
        verdicts.append("contaminated by another process")
    return markdown_row([*cells, "; ".join(verdicts) or UNLIMITED]), all(kept.values())


def _above(usages: Sequence[Vram], area_mib_s: float) -> str:
    """Return the memory above the challenge's limit over time, and its share of all of it."""
    areas = [one.area_above_limit_mib_s for one in usages if one.area_above_limit_mib_s is not None]
    if not areas:
        return UNLIMITED
    above = statistics.median(areas)
    return f"{above:.0f} MiB s ({above / area_mib_s if area_mib_s > 0 else 0.0:.0%})"


def _tiny_case(folder: Path, channels: int) -> Case:
    """Write a sphere of soft tissue in air, a scan of a few voxels; the same in each channel."""
    at = np.linspace(-1.0, 1.0, TINY_SIZE)
    inside = (at[:, None, None] ** 2 + at[:, None] ** 2 + at**2) < 0.8
    voxels = np.where(inside, 50, -1000).astype(np.int16)
    z, y, x = voxels.shape
    header = nifti.header_of(Grid.of_affine((z, y, x), np.diag([-1.5, -1.5, 3.0, 1.0])))
    for channel in range(channels):
        path = folder / "scan" / f"{TINY}_{channel:04}.nii.gz"
        nifti.write(path, header, voxels.dtype, [voxels])
    (case,) = find(folder / "scan")
    return case
