"""CONTRIBUTING.md: the files that its table names are there."""

from __future__ import annotations

import re

from tests import engine


def test_every_task_has_a_file_that_exists() -> None:
    text = (engine.ROOT / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", text, re.MULTILINE)
    assert len(rows) == 22
    assert [row for row in rows if not (engine.ROOT / row).exists()] == []
