"""The pictures of an evaluation, drawn once everything is measured: they cost time of their own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evaluation.apart import CallFailed, each
from evaluation.cases import Case
from evaluation.challenges import CaseLimits, Challenge
from evaluation.errors import EvaluationError
from evaluation.gpu.curve_file import read_curve
from evaluation.pictures import plots, preview
from evaluation.pictures.focus import Choice
from evaluation.record import Record
from evaluation.states import State
from evaluation.store import Store
from evaluation.volumes import Volume, read
from volumes.files import write_whole

CHOICES: tuple[Choice, ...] = ("worst", "largest")


def draw(
    store: Store, cases: Sequence[Case], records: Sequence[Record], challenge: Challenge
) -> list[str]:
    """Draw what is missing or older than its record; return what could not be drawn, and why.

    plots/NAME.png: the VRAM-time curve. overlays/NAME-worst.png and -largest.png: the scan with
    mask and reference at that lesion (one picture where there is only one).
    """
    by_name = {case.name: case for case in cases}
    jobs = [(store, by_name[one.case], one, challenge) for one in records if one.usage is not None]
    if not jobs:
        return []
    names = [one.case for _, _, one, _ in jobs]
    problems = zip(names, each(draw_one, jobs), strict=True)
    return [
        not_drawn(name, problem) if isinstance(problem, CallFailed) else problem
        for name, problem in problems
        if problem is not None
    ]


def draw_one(store: Store, case: Case, one: Record, challenge: Challenge) -> str | None:
    """Draw what is missing of one case, which was run; return what could not be drawn, and why."""
    try:
        _plot(store, one, challenge.limits)
        _overlays(store, case, one, challenge.scoring.lesion_label)
    except (EvaluationError, OSError, ValueError) as error:
        return not_drawn(case.name, error)
    return None


def not_drawn(case: str, why: Exception) -> str:
    """Return the line that says so."""
    return f"no picture of {case}: {why}"


def _plot(store: Store, one: Record, limits: CaseLimits) -> None:
    path = store.picture("plots", one.case)
    if one.vram is None or one.usage is None or _is_new(path, store, one):
        return
    curve = read_curve(store.curve(one.case))
    runtime_s = one.usage.runtime_s
    figure = plots.draw(curve, one.vram, name=one.case, runtime_s=runtime_s, limits=limits)
    write_whole(path, plots.png(figure))


def _overlays(store: Store, case: Case, one: Record, label: int) -> None:
    if one.state is not State.OK or one.accuracy is None or case.reference is None:
        return
    choices = CHOICES if one.accuracy.lesion_count > 1 else CHOICES[1:]
    paths = {choice: store.picture("overlays", f"{one.case}-{choice}") for choice in choices}
    missing = {choice: path for choice, path in paths.items() if not _is_new(path, store, one)}
    if not missing:
        return
    scan = read(case.scans[0])
    mask, reference = (_only(read(path), label) for path in (store.mask(one.case), case.reference))
    for choice, path in missing.items():
        figure = preview.draw(scan, mask, reference, name=one.case, lesion=choice)
        write_whole(path, preview.png(figure))


def _only(labels: Volume, label: int) -> Volume:
    return replace(labels, voxels_zyx=labels.voxels_zyx == label)


def _is_new(path: Path, store: Store, one: Record) -> bool:
    return path.exists() and path.stat().st_mtime >= store.path(one.case).stat().st_mtime
