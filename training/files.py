"""Files that are there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_text(file: Path, text: str) -> None:
    """Write a file so that it is as it was, or complete, whenever the program ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(text)
    part.replace(file)


def write_json(file: Path, content: Any) -> None:
    """The same with JSON."""
    write_text(file, json.dumps(content, indent=1) + "\n")


def link(file: Path, target: Path) -> None:
    """Let ``file`` be a symbolic link to ``target``; one that is there already stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_symlink():
        file.symlink_to(target)
