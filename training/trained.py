"""What nnU-Net's training leaves: a folder, whose checkpoints are found here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from training.errors import TrainingError
from volumes.files import entries

_NAMED = 5  # of the checkpoints that are there instead of the one that is not


def find_checkpoints(folder: Path, checkpoint: str, folds: Sequence[str] | None) -> list[Path]:
    """The checkpoint of each of the folds; None: of all that have it.

    These are by nnU-Net's rule ``fold_all`` only if it is alone, and nothing that nnU-Net does not
    write, such as a copy ``fold_0_old``. Raises TrainingError where there is none.
    """
    files = [fold / checkpoint for fold in entries(folder, "fold_*")]
    there = {f.parent.name.removeprefix("fold_"): f for f in files if f.exists()}
    numbered = sorted((fold for fold in there if fold.isdigit()), key=int)
    chosen = folds or numbered or [fold for fold in there if fold == "all"]
    missing = [fold for fold in chosen or ["X"] if fold not in there]
    if missing:
        raise TrainingError(f"{folder}: no fold_{missing[0]}/{checkpoint} here{_instead(folder)}")
    return [there[fold] for fold in chosen]


def previous_folder(folder: Path, stage: str, given: Path | None) -> Path:
    """The trained folder of a cascade's first stage: ``given``, or that beside the cascade's.

    nnU-Net names folders trainer__plans__configuration. Raises TrainingError.
    """
    names = folder.resolve().name.split("__")
    beside = folder.resolve().with_name("__".join([*names[:-1], stage]))
    if given is None and not (len(names) == 3 and beside.is_dir()):
        raise TrainingError(
            f"{folder}: is a cascade after {stage}, whose folder {beside.name} is not beside it; "
            "give it with --previous-stage"
        )
    return given or beside


def _instead(folder: Path) -> str:
    folds = entries(folder, "fold_*")
    found = [f"{fold.name}/{f.name}" for fold in folds for f in entries(fold, "*.pth")]
    if not found:
        return "; give the folder that nnU-Net's training wrote"
    named = ", ".join(found[:_NAMED]) + (", …" if len(found) > _NAMED else "")
    return f", only {named}; choose with --folds and --checkpoint"
