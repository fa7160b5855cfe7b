"""Rows as a CSV file."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from volumes.files import write_whole


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write rows, the columns in the order in which they first occur; None is left empty."""
    text = io.StringIO()
    names = dict.fromkeys(name for one in rows for name in one)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())
