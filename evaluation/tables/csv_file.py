"""Rows as a CSV file, and back."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from volumes.files import write_whole
from volumes.text import one_line

_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would calculate


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write rows, the columns in the order in which they first occur; None is left empty."""
    text = io.StringIO()
    names = dict.fromkeys(name for one in rows for name in one)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _in_csv(value) for name, value in one.items()} for one in rows)
    write_whole(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return what `write_csv` wrote, numbers as text; raises OSError, or ValueError."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return [{name: _out_of_csv(cell) for name, cell in one.items()} for one in rows]


def _in_csv(value: object) -> object:
    """Return words of others as a cell that a spreadsheet shows; numbers are as they were."""
    if not isinstance(value, str):
        return value
    line = one_line(value)
    return f"'{line}" if line.startswith((*_FORMULA, "'")) else line


def _out_of_csv(cell: str) -> str:
    return cell[1:] if cell.startswith("'") else cell
