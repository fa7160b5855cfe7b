"""Faults that a batch survives, with submissions as processes: nothing here needs an engine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.runners.processes import with_variable
from tests.evaluation.gpu.nvml import FakeDevice, FakeNvml, compile_library
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
    found = set()
    for pid, owner in with_variable("FLARE_OWNER").items():
        with contextlib.suppress(OSError):  # it has just ended
            if evening.folder in Path(f"/proc/{pid}/cwd").readlink().parents:
                found.add(int(owner.split(":")[3]))
    return found


def test_without_any_set_up_all_is_measured_scored_and_tabulated(evening: Evening) -> None:
    evening.add_folder("one", GOOD)
    evening.add_folder("two", BEHAVIOURS["exit3"])
    evening.write_cases(3)
    done = evening.batch("--slots", 2, "--scorers", 1)
    assert evening.code(done) == 0, evening.log()
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
    assert evening.code(done) == 0, evening.log()
    assert "again: its worker on" in evening.log()
    after = evening.records()
    assert len(after) == 3
    for name, one in before.items():
        assert after[name]["started"] == one["started"]


def test_interrupted_it_ends_what_runs_and_goes_on_when_started_again(evening: Evening) -> None:
    evening.add_folder("slow", SLOW)
    evening.write_cases(3)
    first = evening.batch("--slots", 1, "--scorers", 1)
    evening.wait_for(lambda: len(evening.records()) == 1 and at_work(evening))
    first.send_signal(signal.SIGINT)
    assert evening.code(first) == 130
    assert at_work(evening) == set()
    before = evening.records()
    assert tables(evening.output) == {}  # nothing is scored yet, so no table says that it is
    assert evening.code(evening.batch("--slots", 1, "--scorers", 1)) == 0, evening.log()
    assert {name: evening.records()[name]["started"] for name in before} == {
        name: one["started"] for name, one in before.items()
    }
    assert len(tables(evening.output)["slow"]) == 3


def test_a_gpu_that_disappears_fails_its_worker_alone(evening: Evening) -> None:
    driver = FakeNvml(evening.folder, compile_library(evening.folder))
    driver.devices = FakeDevice("GPU-1"), FakeDevice("GPU-2")
    driver.update()
    evening.environment |= driver.environment()
    evening.add_folder("slow", SLOW)
    evening.write_cases(8)
    done = evening.batch("--scorers", 1)
    evening.wait_for(lambda: len(at_work(evening)) == 2)
    driver.devices = FakeDevice("GPU-1"), FakeDevice("GPU-2", total_mib=0)
    driver.update()
    assert evening.code(done) == 0, evening.log()
    found = evening.records()
    assert {one["state"] for one in found.values()} == {"ok"}
    assert {one["environment"]["gpu"]["uuid"] for one in found.values()} >= {"GPU-1"}
    assert len(found) == 8
    assert "a worker gets nothing more" in evening.log()
    assert "GPU GPU-2" in evening.log()


def test_a_full_disk_stops_it_with_a_table_and_room_lets_it_go_on(evening: Evening) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    evening.add_folder("slow", SLOW)
    evening.write_cases(4)
    evening.output.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(evening.output)]
    subprocess.run(mount, check=True)
    try:
        first = evening.batch("--slots", 1, "--scorers", 1)
        evening.wait_for(lambda: len(evening.records()) == 1)
        filler = evening.output / "filler"
        filler.write_bytes(bytes(100 << 20))
        assert evening.code(first) == 1, evening.log()
        before = evening.records()
        assert 1 <= len(before) < 4
        said = evening.log()
        assert "MiB are free, less than 512; make room" in said
        assert "| slow | 0 | 0 | 0 | 4 |" in said
        filler.unlink()
        assert evening.code(evening.batch("--slots", 1, "--scorers", 1)) == 0, evening.log()
        after = evening.records()
        assert len(after) == 4
        assert all(after[name]["started"] == one["started"] for name, one in before.items())
    finally:
        evening.end()
        subprocess.run(["umount", str(evening.output)], check=True)
