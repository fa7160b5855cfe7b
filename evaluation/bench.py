"""Runs a submission on a few scans and holds it against a challenge's limits."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np
from msgspec import Struct

from evaluation import host
from evaluation.apart import CallFailed, each
from evaluation.cases import Case, find
from evaluation.challenges import CaseLimits, as_gb
from evaluation.errors import EvaluationError
from evaluation.scoring.assess import Accuracy, assess, check
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


class Spread(Struct, frozen=True):
    """Median, smallest and largest of repeated measurements."""

    median: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """Return "median (low to high)"."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


class ScanResult(Struct, frozen=True, kw_only=True):
    """One scan, all runs. None: not measured, or it failed, or there was no label.

    kept: of each limit of the challenge whether every run kept it. failure: state and reason of the
    first run that failed. accuracy: of the run with the lowest DSC.
    """

    case: str
    size_xyz: tuple[int, int, int]
    wall_s: Spread | None = None  # as the organisers count: around the whole container
    runtime_s: Spread | None = None
    peak_vram_mib: Spread | None = None
    area_mib_s: Spread | None = None
    area_above_limit_mib_s: float | None = None  # median
    kept: dict[str, bool] = {}
    contaminated: bool = False
    failure: str = ""
    accuracy: Accuracy | None = None

    @property
    def passed(self) -> bool:
        """Whether every run ended well and kept the limits."""
        return not self.failure and all(self.kept.values())


class BenchResult(Struct, frozen=True, kw_only=True):
    """What `bench --json` writes. startup_s: of a scan with next to nothing in it."""

    machine: str
    gpu: str | None
    challenge: str
    repeat: int
    startup_s: Spread | None
    scans: tuple[ScanResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every scan passed."""
        return all(scan.passed for scan in self.scans)


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def bench(runner: MeasuredRunner, cases: Sequence[Case], repeat: int, out: TextIO) -> BenchResult:
    """Run every scan `repeat` times, print a table as it grows, and return what is in it.

    A scan passes when its slowest run ends within the challenge's limit of time, and its largest
    peak of GPU memory above the baseline is within the limit of that. Cases with a reference are
    scored.
    """
    challenge, gpu = runner.conditions.challenge, runner.gpu
    for remark in (remark for case in cases for remark in case.remarks):
        print(one_line(f"notice   {remark}"), file=out)
    machine = host.description()
    print(f"machine  {machine}, {gpu.name if gpu else 'no GPU'}", file=out)
    scored = any(case.reference for case in cases)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=runner.folder) as folder:
        tiny = _tiny_case(Path(folder), channels=len(cases[0].scans))
        mask = Path(folder) / tiny.mask_name
        startup_s = _startup_s([runner.run(tiny, mask) for _ in range(repeat)], out)
        head = _head(challenge.limits, scored)
        print(markdown_table(head, rows=(), words=(0, 1, len(head) - 1)), file=out, flush=True)
        scans = []
        for case in cases:
            mask = Path(folder) / case.mask_name
            runs = [_judged(runner.run(case, mask), case, challenge.scoring) for _ in range(repeat)]
            scans.append(_result(case, runs, challenge.limits))
            cells = _cells(scans[-1], startup_s, challenge.limits, scored)
            print(markdown_row(cells), file=out, flush=True)
    if gpu is None:
        print("GPU memory was not measured: no GPU was used.", file=out)
    return BenchResult(
        machine=machine,
        gpu=gpu.name if gpu else None,
        challenge=challenge.name,
        repeat=repeat,
        startup_s=startup_s,
        scans=tuple(scans),
    )


def _judged(trial: Trial, case: Case, rules: ScoringRules) -> tuple[Trial, Accuracy | None]:
    """Return the trial, failed if the challenge would refuse its mask, and its score if known."""
    if trial.mask is None:
        return trial, None
    if case.reference is None:
        try:
            check(trial.mask, case.grid, rules)
        except EvaluationError as error:
            return replace(trial, state=State.BAD_OUTPUT, message=str(error)), None
        return trial, None
    (judged,) = each(assess, [(trial.mask, case.reference, case.grid, rules)])
    if isinstance(judged, CallFailed):
        return replace(trial, state=State.INFRA_ERROR, message=f"not scored: {judged}"), None
    state, message, accuracy = judged
    return replace(trial, state=state, message=message), accuracy


def _startup_s(trials: Sequence[Trial], out: TextIO) -> Spread | None:
    """Say and return what a run takes that has nothing to do; None when it fails on such a scan."""
    walls = [trial.outcome.wall_s for trial in trials if trial.outcome is not None]
    failed = next((trial for trial in trials if trial.state is not State.OK), None)
    if failed is not None:
        why = f"{failed.state} on a tiny scan, {failed.message}"
        print(one_line(f"start-up {UNMEASURED}: {why}"), file=out)
        return None
    shown = spread(walls).text(2)
    print(f"start-up {shown} s: the whole of a run on a scan of {TINY_SIZE} voxels cubed", file=out)
    return spread(walls)


def _result(
    case: Case, runs: Sequence[tuple[Trial, Accuracy | None]], limits: CaseLimits
) -> ScanResult:
    z, y, x = case.grid.shape_zyx
    failed = next((trial for trial, _ in runs if trial.state is not State.OK), None)
    if failed is not None:
        failure = f"{failed.state}, {failed.message}"
        return ScanResult(case=case.name, size_xyz=(x, y, z), failure=failure)
    outcomes = [trial.outcome for trial, _ in runs if trial.outcome is not None]
    walls = spread([outcome.wall_s for outcome in outcomes])
    usages = [trial.vram for trial, _ in runs if trial.vram is not None]
    peaks = spread([usage.peak_vram_mib for usage in usages]) if usages else None
    kept = {}
    if limits.time_s is not None:
        kept[f"time {limits.time_s:g} s"] = walls.high <= limits.time_s
    if limits.vram_mib is not None and peaks is not None:
        kept[f"memory {as_gb(limits.vram_mib)}"] = peaks.high <= limits.vram_mib
    above = [one.area_above_limit_mib_s for one in usages if one.area_above_limit_mib_s is not None]
    accuracies = [accuracy for _, accuracy in runs if accuracy is not None]
    return ScanResult(
        case=case.name,
        size_xyz=(x, y, z),
        wall_s=walls,
        runtime_s=spread([outcome.runtime_s for outcome in outcomes]),
        peak_vram_mib=peaks,
        area_mib_s=spread([usage.area_mib_s for usage in usages]) if usages else None,
        area_above_limit_mib_s=statistics.median(above) if above else None,
        kept=kept,
        contaminated=any(usage.contaminated for usage in usages),
        accuracy=min(accuracies, key=lambda one: one.dsc, default=None),
    )


def _head(limits: CaseLimits, scored: bool) -> tuple[str, ...]:
    limit = "the limit" if limits.vram_mib is None else as_gb(limits.vram_mib)
    scores = ("DSC", "NSD", "lesion F1") if scored else ()
    times = ("wall s", "runtime s", "start-up")
    memory = ("peak MiB", "area MiB s", f"over {limit}")
    return ("scan", "size", *scores, *times, *memory, "verdict")


def _cells(
    scan: ScanResult, startup_s: Spread | None, limits: CaseLimits, scored: bool
) -> list[str]:
    """Return a scan's line of the table."""
    name, size = in_markdown(scan.case), " x ".join(map(str, scan.size_xyz))
    if scan.wall_s is None or scan.runtime_s is None:
        empty = [""] * (len(_head(limits, scored)) - 3)
        return [name, size, *empty, f"FAIL: {in_markdown(scan.failure)}"]
    one = scan.accuracy
    scores = [one.dsc, one.nsd, one.lesion_f1] if one else [None] * 3
    cells = [name, size]
    cells += [_number(score, ".3f") for score in scores] if scored else []
    share = None if startup_s is None else startup_s.median / scan.wall_s.median
    cells += [scan.wall_s.text(1), scan.runtime_s.text(1), _number(share, ".0%")]
    cells += [
        UNMEASURED if found is None else found.text(0)
        for found in (scan.peak_vram_mib, scan.area_mib_s)
    ]
    verdicts = [f"{'pass' if good else 'FAIL'}: {limit}" for limit, good in scan.kept.items()]
    if scan.contaminated:
        verdicts.append("contaminated by another process")
    return [*cells, _above(scan), "; ".join(verdicts) or UNLIMITED]


def _number(value: float | None, form: str) -> str:
    return UNMEASURED if value is None else f"{value:{form}}"


def _above(scan: ScanResult) -> str:
    """Return the memory above the challenge's limit over time, and its share of all of it."""
    if scan.area_mib_s is None:
        return UNMEASURED
    if (above := scan.area_above_limit_mib_s) is None:
        return UNLIMITED
    whole = scan.area_mib_s.median
    return f"{above:.0f} MiB s ({above / whole if whole > 0 else 0.0:.0%})"


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
