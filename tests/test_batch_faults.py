"""Faults that a batch survives, with submissions as processes: nothing here needs an engine."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.runners.processes import with_variable
from tests.evening import PRELOAD, Evening, tables
from tests.submissions import BEHAVIOURS, Behaviour

GOOD = BEHAVIOURS["good"]
SLOW = Behaviour("ok", f"sleep 2; {GOOD.script}", make=GOOD.make)


@pytest.fixture
def evening(tmp_path: Path) -> Iterator[Evening]:
    one = Evening(tmp_path / "evening", {PRELOAD: "tests.evaluation.batch.processes"})
    yield one
    one.end()


def at_work(evening: Evening) -> set[int]:
    """The workers that run a submission now."""
    ours = str(evening.folder)
    owners = with_variable("FLARE_OWNER")
    return {
        int(owner.split(":")[3])
        for pid, owner in owners.items()
        if os.path.exists(f"/proc/{pid}/cwd") and os.readlink(f"/proc/{pid}/cwd").startswith(ours)
    }


def test_without_any_set_up_all_is_measured_scored_and_tabulated(evening: Evening) -> None:
    evening.add_folder("one", GOOD)
    evening.add_folder("two", BEHAVIOURS["exit3"])
    evening.write_cases(3)
    done = evening.batch("--slots", 2, "--scorers", 1)
    assert done.wait(120) == 0, evening.log()
    assert len(evening.records()) == 6
    found = tables(evening.output)
    assert [row["status"] for row in found["one"]] == ["ok"] * 3
    assert [row["dsc"] for row in found["one"]] == ["1.0"] * 3
    assert [row["status"] for row in found["two"]] == ["nonzero_exit"] * 3
    assert "| two | 3 | 0 | 3 | 0 | 3 nonzero_exit |" in evening.log()


def test_a_worker_killed_in_a_timed_run_loses_that_run_alone(evening: Evening) -> None:
    evening.add_folder("slow", SLOW)
    evening.write_cases(3)
    done = evening.batch("--slots", 1, "--scorers", 1)
    evening.wait_for(lambda: len(evening.records()) == 1 and at_work(evening))
    before = evening.records()
    (victim,) = at_work(evening)
    os.kill(victim, signal.SIGKILL)
    assert done.wait(120) == 0, evening.log()
    assert "again: its worker on" in evening.log()
    after = evening.records()
    assert len(after) == 3
    for name, one in before.items():
        assert after[name]["started"] == one["started"]
