"""Tries all hostile inputs and writes how many held: ``python -m tests.hostile.count``."""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.corpus import ENTRIES
from tests.hostile.entry import Entry

ROOT = Path(__file__).parents[2]
HEAD = ("| hostile input | attempts | held |", "|---|---|---|")


def holds(entry: Entry) -> bool:
    """Whether it comes to what it must; says so where it does not."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            wrong = entry.wrong(Path(folder))
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
    if wrong:
        print(f"{entry.id}: {wrong}", file=sys.stderr)
    return not wrong


def counted(held: Callable[[Entry], bool]) -> dict[str, tuple[int, int]]:
    """Attempts by kind, and how many of them held."""
    counts: dict[str, tuple[int, int]] = {}
    for entry in ENTRIES:
        attempts, good = counts.get(entry.kind, (0, 0))
        counts[entry.kind] = attempts + 1, good + held(entry)
    return counts


def documents(counts: dict[str, tuple[int, int]]) -> dict[Path, str]:
    """The documents that say so, as they should be: the table by kind, and the sum."""
    tried, good = map(sum, zip(*counts.values(), strict=True))
    rows = [f"| {kind} | {all_} | {held} |" for kind, (all_, held) in counts.items()]
    table = "\n".join([*HEAD, *rows, f"| all | {tried} | {good} |"])
    patterns = {
        ROOT / "SECURITY.md": (re.escape("\n".join(HEAD)) + r"(\n\|.*)*", table),
        ROOT / "README.md": (r"\d+ of \d+(?=\n\[held\])", f"{good} of {tried}"),
    }
    return {
        file: re.sub(pattern, replacement, file.read_text())
        for file, (pattern, replacement) in patterns.items()
    }


def main() -> None:
    """Write the documents anew."""
    logging.disable()  # what nibabel says of masks that it reads
    for file, text in documents(counted(holds)).items():
        file.write_text(text)


if __name__ == "__main__":
    main()
