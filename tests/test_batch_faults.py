"""Faults that a batch survives, with submissions as processes: nothing here needs an engine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.runners.processes import with_variable
from tests.evaluation.gpu.nvml import FakeDevice, FakeNvml, compile_library
from tests.small_batch import PRELOAD, SmallBatch, tables
from tests.submissions import BEHAVIOURS, Behaviour
from volumes.files import sha256

pytestmark = pytest.mark.slow

GOOD = BEHAVIOURS["good"]
SLOW = Behaviour("ok", f"sleep 2; {GOOD.script}", make=GOOD.make)


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[SmallBatch]:
    one = SmallBatch(tmp_path / "batch", {PRELOAD: "tests.evaluation.batch.processes"})
    yield one
    one.end()


def at_work(batch: SmallBatch) -> set[int]:
    """The workers that run a submission now."""
    found = set()
    for pid, owner in with_variable("FLARE_OWNER").items():
        with contextlib.suppress(OSError):  # it has just ended
            if batch.folder in Path(f"/proc/{pid}/cwd").readlink().parents:
                found.add(int(owner.split(":")[3]))
    return found


@pytest.mark.parametrize("options", [(), ("--anonymise",)])
def test_without_any_set_up_all_is_measured_scored_and_tabulated(
    batch: SmallBatch, options: tuple[str, ...]
) -> None:
    batch.add_folder("one", GOOD)
    batch.add_folder("two", BEHAVIOURS["exit3"])
    batch.write_cases(3)
    done = batch.start("--slots", 2, "--scorers", 1, *options)
    assert batch.code(done) == 0, batch.log()
    aliases = {name: one["alias"] for name, one in batch.records().items()}
    assert aliases == {
        f"{team}/case{i}": f"case_000{i + 1}" if options else ""
        for team in ("one", "two")
        for i in range(3)
    }
    found = tables(batch.output)
    assert [row["status"] for row in found["one"]] == ["ok"] * 3
    assert [row["dsc"] for row in found["one"]] == ["1.0"] * 3
    assert [row["status"] for row in found["two"]] == ["nonzero_exit"] * 3
    assert "| two | 3 | 0 | 3 | 0 | 3 nonzero_exit |" in batch.log()


ODD = ("Team Ünïcode", "myteam (1)", "team_", "-team", "a___b", "team+1", "ranking")


def test_a_name_that_no_image_can_have_is_its_own_teams_refusal(batch: SmallBatch) -> None:
    for name in (*ODD, "good", "a--b", "x__y_1"):
        batch.add_folder(name, GOOD)
    batch.write_cases(1)
    done = batch.start("--slots", 1, "--scorers", 1)
    assert batch.code(done) == 1
    log = batch.log()
    assert "Traceback" not in log
    for name in ODD[:-1]:
        said = f"refused  {name.lower()}: {ascii(name.lower())[1:-1]} cannot be an image's name"
        assert said in log
    assert "refused  ranking: no team can be called ranking" in log
    found = {name for name, one in batch.records().items() if one["state"] == "ok"}
    assert found == {"good/case0", "a--b/case0", "x__y_1/case0"}
    verdict = json.loads((batch.output / "team_" / "submission.json").read_text())
    assert verdict["state"] == "refused"


def test_another_archive_of_a_team_is_evaluated_anew_and_the_earlier_results_are_kept(
    batch: SmallBatch,
) -> None:
    for name in ("one", "two"):
        batch.add_folder(name, BEHAVIOURS["exit3"])
    batch.write_cases(1)
    command = ("--slots", 1, "--scorers", 1)
    assert batch.code(batch.start(*command)) == 0, batch.log()
    first = batch.records()
    assert first["one/case0"]["environment"]["archive_sha256"] == sha256(
        batch.submissions / "one.tar.gz"
    )

    shutil.rmtree(batch.folder / "sources" / "one")
    batch.add_folder("one", GOOD)
    os.utime(batch.submissions / "two.tar.gz")  # copied again, but the same
    assert batch.code(batch.start(*command)) == 0, batch.log()
    kept = batch.output / ".superseded" / "one-1"
    said = f"one is evaluated anew (another archive than before); earlier results are in {kept}"
    assert said in batch.log()
    after = batch.records()
    assert (after["one/case0"]["state"], after["two/case0"]) == ("ok", first["two/case0"])
    assert json.loads((kept / "cases" / "case0.json").read_text()) == first["one/case0"]

    assert batch.code(batch.start(*command, "--again", "two")) == 0, batch.log()
    again = batch.records()
    assert again["one/case0"] == after["one/case0"]
    assert again["two/case0"]["started"] > first["two/case0"]["started"]
    assert batch.code(batch.start(*command, "--again", "nobody")) == 1
    assert "error: --again nobody: no such team; there are one, two" in batch.log()


def test_a_worker_killed_in_a_timed_run_loses_that_run_alone(batch: SmallBatch) -> None:
    batch.add_folder("slow", SLOW)
    batch.write_cases(3)
    done = batch.start("--slots", 1, "--scorers", 1)
    batch.wait_for(lambda: len(batch.records()) == 1 and at_work(batch))
    before = batch.records()
    (victim,) = at_work(batch)
    os.kill(victim, signal.SIGKILL)
    assert batch.code(done) == 0, batch.log()
    assert "again: its worker on" in batch.log()
    after = batch.records()
    assert len(after) == 3
    for name, one in before.items():
        assert after[name]["started"] == one["started"]


def test_interrupted_it_ends_what_runs_and_goes_on_when_started_again(batch: SmallBatch) -> None:
    batch.add_folder("slow", SLOW)
    batch.write_cases(3)
    first = batch.start("--slots", 1, "--scorers", 1)
    batch.wait_for(lambda: len(batch.records()) == 1 and at_work(batch))
    first.send_signal(signal.SIGINT)
    assert batch.code(first) == 130
    assert "interrupted; what was measured is kept, and the same command goes on" in batch.log()
    assert at_work(batch) == set()
    before = batch.records()
    assert tables(batch.output) == {}  # nothing is scored yet, so no table says that it is
    assert batch.code(batch.start("--slots", 1, "--scorers", 1)) == 0, batch.log()
    assert {name: batch.records()[name]["started"] for name in before} == {
        name: one["started"] for name, one in before.items()
    }
    assert len(tables(batch.output)["slow"]) == 3


def test_a_gpu_that_disappears_fails_its_worker_alone(batch: SmallBatch) -> None:
    driver = FakeNvml(batch.folder, compile_library(batch.folder))
    driver.devices = FakeDevice("GPU-1"), FakeDevice("GPU-2")
    driver.update()
    batch.environment |= driver.environment()
    batch.add_folder("slow", SLOW)
    batch.write_cases(8)
    done = batch.start("--scorers", 1)
    batch.wait_for(lambda: len(at_work(batch)) == 2)
    driver.devices = FakeDevice("GPU-1"), FakeDevice("GPU-2", total_mib=0)
    driver.update()
    assert batch.code(done) == 0, batch.log()
    found = batch.records()
    assert {one["state"] for one in found.values()} == {"ok"}
    assert {one["environment"]["gpu"]["uuid"] for one in found.values()} >= {"GPU-1"}
    assert len(found) == 8
    assert "a worker gets nothing more" in batch.log()
    assert "GPU GPU-2" in batch.log()


def test_a_full_disk_stops_it_with_a_table_and_room_lets_it_go_on(batch: SmallBatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    batch.add_folder("slow", SLOW)
    batch.write_cases(4)
    batch.output.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(batch.output)]
    subprocess.run(mount, check=True)
    try:
        first = batch.start("--slots", 1, "--scorers", 1)
        batch.wait_for(lambda: len(batch.records()) == 1)
        filler = batch.output / "filler"
        filler.write_bytes(bytes(100 << 20))
        assert batch.code(first) == 1, batch.log()
        before = batch.records()
        assert 1 <= len(before) < 4
        said = batch.log()
        assert "MiB are free, less than 512; make room" in said
        assert "| slow | 0 | 0 | 0 | 4 |" in said
        filler.unlink()
        assert batch.code(batch.start("--slots", 1, "--scorers", 1)) == 0, batch.log()
        after = batch.records()
        assert len(after) == 4
        measured = {name: one for name, one in before.items() if one["state"] == "ok"}
        assert measured
        assert all(after[name]["started"] == one["started"] for name, one in measured.items())
    finally:
        batch.end()
        subprocess.run(["umount", str(batch.output)], check=True)
