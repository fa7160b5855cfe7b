"""crops.json: what training.crops drew, and from which scan, for those who use the crops."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from training.errors import TrainingError
from training.files import Json, read_json

RECORD = "crops.json"
_REMEDY = "draw the crops again into a new folder"


@dataclass(frozen=True)
class Origin:
    """Of one crop: the scan that it is a part of, and whether it was drawn to hold no lesion."""

    scan: str
    healthy: bool


def read_record(folder: Path) -> Json:
    """What was drawn, by scan; nothing where no crops were drawn. Raises TrainingError."""
    file = folder / RECORD
    if not file.exists():
        return {}
    record = read_json(file, _REMEDY)
    if not all(isinstance(drawn, dict) and "drawn" in drawn for drawn in record.values()):
        raise TrainingError(f"{file}: is not of training.crops; {_REMEDY}")
    return record


def origins(folder: Path) -> dict[str, Origin]:
    """Where each crop of a folder is from, by its name. Raises TrainingError."""
    return {
        name: Origin(drawn.get("crop_of") or scan, is_box(name))
        for scan, drawn in read_record(folder).items()
        for name in drawn["drawn"]
    }


def is_box(name: str) -> bool:
    """Whether a crop of that name was drawn to hold no lesion."""
    return re.search(r"_box\d+$", name) is not None
