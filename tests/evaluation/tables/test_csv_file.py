"""Rows as a CSV file: what a spreadsheet makes of it, and what is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.tables.csv_file import read_csv, write_csv


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("'quoted", "''quoted"),
        ("a=1", "a=1"),
        ("\t=1", "'=1"),
        ("a\r\n=1", "a =1"),
        ("\x1b[31m\udcff", "\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}"),
        (-1.5, "-1.5"),
        (None, ""),
    ],
)
def test_a_cell_is_no_formula_and_one_line(value: object, written: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"name": value, "n": 1}])
    assert (tmp_path / "a.csv").read_text() == f"name,n\n{written},1\n"


@pytest.mark.parametrize("word", ["=1", "-1", "'", "'=1", "''", "a,b", 'a"b', "", "plain"])
def test_words_are_read_as_they_were(word: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"name": word, "n": 1}])
    assert read_csv(tmp_path / "a.csv") == [{"name": word, "n": "1"}]
