"""Tries all hostile inputs and writes how many held: ``python -m tests.hostile.count``."""

from __future__ import annotations

import itertools
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.hostile.corpus import ENTRIES
from tests.hostile.entry import Entry

DOCUMENT = Path(__file__).parents[2] / "SECURITY.md"
HEAD = "| hostile input | attempts | held |\n|---|---|---|\n"


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


def table(counts: dict[str, tuple[int, int]]) -> str:
    """The rows of the document, with their sum."""
    rows = [*counts.items(), ("all", tuple(map(sum, zip(*counts.values(), strict=True))))]
    return HEAD + "".join(f"| {kind} | {tried} | {good} |\n" for kind, (tried, good) in rows)


def main() -> None:
    """Replace the document's table."""
    logging.disable()  # what nibabel says of masks that it reads
    before, _, after = DOCUMENT.read_text().partition(HEAD)
    rest = itertools.dropwhile(lambda line: line.startswith("|"), after.splitlines(keepends=True))
    DOCUMENT.write_text(before + table(counted(holds)) + "".join(rest))


if __name__ == "__main__":
    main()
