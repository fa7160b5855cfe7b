"""benchmarks.mutants on a small tree: what is changed, and what the tests make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.mutants import Mutant, chosen, fate, main, mutants, still_there

SOURCE = """\
LIMIT = 3


def small(number):
    return not number >= LIMIT and number != -1
"""
TEST = """\
from app.sizes import small


def test_small():
    assert small(2) and not small(3)


def test_that_fails_anyhow():
    assert False
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    files = {"app/__init__.py": "", "app/sizes.py": SOURCE, "tests/app/test_sizes.py": TEST}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def test_every_place_is_changed_once(tree: Path) -> None:
    assert [(one.line, one.after.strip()) for one in mutants(tree)] == [
        (1, "LIMIT = (3 + 1)"),
        (5, "return not number >= LIMIT or number != -1"),
        (5, "return number >= LIMIT and number != -1"),
        (5, "return not number >= LIMIT and number == -1"),
        (5, "return not number > LIMIT and number != -1"),
        (5, "return not number >= LIMIT and number != -(1 + 1)"),
    ]


def test_what_a_seed_draws_is_the_same_and_of_different_lines(tree: Path) -> None:
    drawn = chosen(tree, 60, seed=1)
    assert drawn == chosen(tree, 60, seed=1)
    assert sorted(one.line for one in drawn) == [1, 5]
    assert len(chosen(tree, 1, seed=1)) == 1


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("    return not number > LIMIT and number != -1", "killed"),
        ("    return not number >= LIMIT and number != -(1 + 1)", "survived"),
        ("    import os; os.abort()", "killed"),
    ],
)
def test_a_test_that_fails_anyhow_says_nothing(after: str, expected: str, tree: Path) -> None:
    before = "    return not number >= LIMIT and number != -1"
    assert fate(tree, Mutant("app/sizes.py", 5, before, after)) == expected
    assert (tree / "app/sizes.py").read_text() == SOURCE


def test_a_report_is_followed_to_where_its_lines_are_now(tree: Path, tmp_path: Path) -> None:
    assert main(["--tree", str(tree), "--output", str(tmp_path), "--count", "1"]) == 0
    (line,) = (tmp_path / "mutants.jsonl").read_text().splitlines()
    one = json.loads(line)
    assert one.pop("fate") in ("killed", "survived")
    (tree / "app/sizes.py").rename(tree / "app/lengths.py")
    (found,) = still_there(tree, [Mutant(**one)])
    assert (found.path, found.after) == ("app/lengths.py", one["after"])
    gone = Mutant("app/sizes.py", 1, "LIMIT = 4", "LIMIT = (4 + 1)")
    assert still_there(tree, [gone]) == []
