"""What training.prepare leaves, for those who use it: its record, and the cases of a fold."""

from __future__ import annotations

from pathlib import Path

from training import nnunet
from training.cases import SUFFIX, Case
from training.errors import TrainingError
from training.files import Json, read_json
from training.prepare import RECORD

ALL = "all"  # nnU-Net's name for a training on every case, with none held out


def read_record(folder: Path) -> Json:
    """The record of a preparation that is complete; raises TrainingError."""
    record = read_json(folder / RECORD, "run python -m training.prepare")
    if not record["complete"]:
        raise TrainingError(
            f"{folder}: its preparation was interrupted; run python -m training.prepare again"
        )
    return {"crop_of": {}} | record  # older ones do not have it


def held_out(folder: Path, record: Json, fold: str) -> list[str]:
    """The cases of the fold that is validated on; none where all are trained on."""
    if fold == ALL:
        return []
    count = len(record["splits"])
    if not fold.isdigit() or int(fold) >= count:
        raise TrainingError(f"--fold {fold}: {folder} has folds 0 to {count - 1}, or {ALL}")
    names: list[str] = record["splits"][int(fold)]["val"]
    return names


def cases(folder: Path, record: Json, names: list[str]) -> list[Case]:
    """Scans and masks of these cases, in nnU-Net's raw folder."""
    raw = folder / nnunet.RAW / record["dataset"]
    return [
        Case(
            name,
            raw / "imagesTr" / f"{name}_0000{SUFFIX}",
            raw / "labelsTr" / f"{name}{SUFFIX}",
            healthy=name in record["healthy"],
            crop_of=record["crop_of"].get(name),
        )
        for name in names
    ]
