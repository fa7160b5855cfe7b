"""Every hostile input has the outcome that it must have, in bounded time and memory."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.hostile.corpus import ENTRIES
from tests.hostile.entry import Entry

CPU_S = 2.0
MEMORY_MIB = 200.0
LINE = 300  # characters, the file's own folder aside


def peak_mib() -> float:
    """Of this process's memory, since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def forget_peak() -> None:
    with suppress(OSError):  # where it may not, the peak is one of all tests so far
        Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_it_is_sound_or_one_line(entry: Entry, tmp_path: Path) -> None:
    path = entry.make(tmp_path)
    forget_peak()
    before_mib, before_s = peak_mib(), time.process_time()
    line = entry.attempt(path)
    assert time.process_time() - before_s < CPU_S
    assert peak_mib() - before_mib < MEMORY_MIB
    if entry.says is None:
        assert line == ""
        return
    assert entry.says in line != ""
    assert "\n" not in line
    assert len(line.replace(str(tmp_path), "")) <= LINE


def test_there_are_enough_of_them_and_none_is_named_twice() -> None:
    assert len({entry.id for entry in ENTRIES}) == len(ENTRIES) >= 400
