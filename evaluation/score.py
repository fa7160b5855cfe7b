"""Scores masks that are there already, without running anything."""

from pathlib import Path
from typing import Any

from evaluation.apart import CallFailed, each
from evaluation.cases import SUFFIX, volumes_in
from evaluation.challenges import Challenge
from evaluation.record import accuracy_columns, cannot_be_scored
from evaluation.scoring.assess import Accuracy, assess
from evaluation.states import State
from evaluation.tables import results as tables
from evaluation.tables.csv_file import write_csv
from evaluation.volumes import read_grid
from volumes.command import say
from volumes.files import write_whole
from volumes.grid import Grid


def score_folder(predictions: Path, labels: Path, output: Path, challenge: Challenge) -> bool:
    """Write scores.csv and scores.md into `output`; return whether every mask is sound.

    labels: NAME.nii.gz, one a case. predictions: NAME.nii.gz; a case that has none is scored 0, one
    without a label is named and left alone. Raises EvaluationError when a folder is not there, or a
    label cannot be used.
    """
    given = {path.name: path for path in volumes_in(predictions, may_be_empty=True)}
    references = volumes_in(labels)
    output.mkdir(parents=True, exist_ok=True)  # which may fail now and not hours later
    grids = [read_grid(path) for path in references]
    jobs = [
        (given.pop(path.name, None), path, grid, challenge.scoring)
        for path, grid in zip(references, grids, strict=True)
    ]
    rows = []
    for path, grid, judged in zip(references, grids, each(assess, jobs), strict=True):
        rows.append(_row(path, grid, judged))
        say(_line(rows[-1]))
    write_csv(output / "scores.csv", rows)
    table = tables.markdown(rows, challenge.limits)
    write_whole(output / "scores.md", table)
    print(table)
    for path in given.values():
        say(f"notice   {path}: has no label, not scored")
    say(f"scores   {output / 'scores.csv'}")
    return all(row["status"] == State.OK for row in rows)


def _row(
    reference: Path, grid: Grid, judged: tuple[State, str, Accuracy] | CallFailed
) -> dict[str, Any]:
    state, message, accuracy = (
        (State.INFRA_ERROR, cannot_be_scored(judged), None)
        if isinstance(judged, CallFailed)
        else judged
    )
    size = dict(zip(("size_x", "size_y", "size_z"), grid.shape_zyx[::-1], strict=True))
    return {
        "case": reference.name.removesuffix(SUFFIX),
        "status": state.value,
        **accuracy_columns(accuracy),
        **size,
        "message": message,
    }


def _line(row: dict[str, Any]) -> str:
    marks = "" if row["dsc"] is None else f"DSC {row['dsc']:.3f} NSD {row['nsd']:.3f}"
    return f"{row['case']:20} {row['status']:10} {marks}  {row['message']}"
