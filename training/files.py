"""JSON and small files, which are there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from volumes import files

Json = dict[str, Any]


def write_json(file: Path, content: Any) -> None:
    """Write a file of JSON; it is as it was, or complete, whenever the program ends."""
    files.write_whole(file, json.dumps(content, indent=1) + "\n")


def read_json(file: Path, remedy: str, most_bytes: int | None = None) -> Json:
    """The object in a file of JSON; raises TrainingError, which ends with what to do then.

    most_bytes: that it may have, if others wrote it.
    """
    try:
        content = files.read_json(file, most_bytes)
    except FileNotFoundError:
        raise TrainingError(f"{file}: is missing; {remedy}") from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file}: cannot be read ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{file}: should hold a JSON object; {remedy}")
    return content


def stamp(file: Path) -> list[str | int]:
    """Return what identifies a file as it is: its path, its size and when it was changed."""
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


def link(file: Path, target: Path) -> None:
    """Let ``file`` be a symbolic link to ``target``; one that is there already stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_symlink():
        file.symlink_to(target)
