"""Every hostile input has the outcome that it must have, in bounded time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile import entry
from tests.hostile.corpus import ENTRIES
from tests.hostile.count import counted, documents
from tests.hostile.entry import Entry, written


@pytest.mark.parametrize("one", ENTRIES, ids=lambda one: one.id)
def test_it_is_sound_or_one_line(one: Entry, tmp_path: Path) -> None:
    assert one.wrong(tmp_path) is None


def test_there_are_enough_of_them_and_none_is_named_twice() -> None:
    assert len({one.id for one in ENTRIES}) == len(ENTRIES) >= 400


def a_second(path: Path) -> str:
    end_s = time.process_time() + 1
    while time.process_time() < end_s:
        pass
    return path.name


@pytest.mark.parametrize(
    ("attempt", "says", "wrong"),
    [
        (lambda path: "a line", None, "refused: a line"),
        (lambda path: "", "a line", "not refused"),
        (lambda path: "another", "a line", "refused otherwise: another"),
        (lambda path: "a line\nand another", "a line", "no line of"),
        (lambda path: "a line" * 99, "a line", "no line of"),
        (a_second, "file", "took 1.0 s of CPU"),
        (lambda path: str(len(b"1" * 2**28)), "268435456", "took 256 MiB"),
    ],
)
def test_what_does_not_hold_is_seen(
    attempt: Callable[[Path], str],
    says: str | None,
    wrong: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entry, "CPU_S", 0.9)
    one = Entry("none", "none", written("file", b""), attempt, says)
    assert wrong in str(one.wrong(tmp_path))


def test_the_documents_say_how_many_held() -> None:
    """`python -m tests.hostile.count` writes them anew."""
    for file, text in documents(counted(lambda one: True)).items():
        assert file.read_text() == text
