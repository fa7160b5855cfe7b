"""Whatever is killed, at twenty seeded moments: nothing is lost, counted twice, or left behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.runners.docker import OWNER_LABEL
from evaluation.runners.processes import descendants
from tests import engine
from tests.own_engine import OwnEngine
from tests.small_batch import PRELOAD, SmallBatch, tables
from tests.submissions import BEHAVIOURS, Behaviour, write_cases, write_submission
from tests.test_harness import built, command, environment, evaluate, option, records, rows

pytestmark = pytest.mark.slow

KILLS = 20
SEED = 20241122
GOOD = BEHAVIOURS["good"]
SLOW = Behaviour("ok", f"sleep 0.3; {GOOD.script}", make=GOOD.make)


def running_beneath(folder: Path) -> list[int]:
    """The processes that are in this folder or below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder in (process / "cwd").readlink().parents:
                found.append(int(process.name))
    return found


def left_behind(temporary: Path, results: Path) -> list[str]:
    """What nobody needs any more: folders and processes of runs, and files half written."""
    folders = [*temporary.glob("flare-*/run-*"), *results.rglob("*.unfinished")]
    return [*map(str, folders), *map(str, running_beneath(temporary))]


@pytest.mark.parametrize(
    ("runner", "kills", "latest_s"),
    [pytest.param("docker", 6, 4.0, marks=pytest.mark.engine), ("process", KILLS, 1.0)],
)
def test_a_harness(tmp_path: Path, runner: str, kills: int, latest_s: float) -> None:
    source = write_submission(tmp_path / "submission", {"good": SLOW})
    names = [f"good_{i:02}" for i in range(2 * kills)]
    write_cases(tmp_path, names)
    kept: dict[str, dict[str, object]] = {}
    moments = random.Random(SEED)
    with built(runner, source) as name:
        for _ in range(kills):
            harness = subprocess.Popen(
                command(tmp_path, option(name), "--resume"),
                cwd=source,
                env=environment(tmp_path),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            before = set(tmp_path.glob("flare-*/run-*"))
            while harness.poll() is None and set(tmp_path.glob("flare-*/run-*")) <= before:
                time.sleep(0.01)  # until it is at work
            time.sleep(moments.uniform(0.0, latest_s))
            harness.kill()
            harness.wait()
            now = records(tmp_path)
            assert all(now[case]["started"] == one["started"] for case, one in kept.items())
            kept = now
        done = evaluate(tmp_path, option(name), "--resume")
        if name != "process":
            of_image = ("ps", "-aq", "--filter", f"ancestor={name}")
            assert engine.docker(*of_image).stdout == ""
    assert done.returncode == 0, done.stderr
    assert 0 < len(kept) < len(names)  # it was killed in the midst of its work
    assert {case: row["dsc"] for case, row in rows(tmp_path).items()} == dict.fromkeys(names, "1.0")
    now = records(tmp_path)
    assert all(now[case]["started"] == one["started"] for case, one in kept.items())
    assert left_behind(tmp_path, tmp_path / "results") == []


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[SmallBatch]:
    one = SmallBatch(tmp_path / "batch", {PRELOAD: "tests.evaluation.batch.processes"})
    yield one
    one.end()


def test_a_scheduler_a_worker_or_the_batch_itself(batch: SmallBatch) -> None:
    batch.add_folder("slow", SLOW)
    batch.write_cases(KILLS)
    scheduler = batch.scheduler()
    workers = batch.workers("--slots", 2, "--scorers", 1)
    first = batch.start(*batch.cluster, "--wait", 60)
    moments, killed = random.Random(SEED), []
    kept: dict[str, str] = {}
    batch.wait_for(batch.records)
    for _ in range(KILLS):
        time.sleep(moments.uniform(0.1, 1.2))
        killed.append(moments.choice(["scheduler", "worker", "batch"]))
        match killed[-1]:
            case "scheduler":
                scheduler.kill()
                scheduler.wait()
                scheduler = batch.scheduler()
            case "worker":
                with contextlib.suppress(IndexError, ProcessLookupError):  # it was about to start
                    slots = sorted(descendants(workers.pid) - {workers.pid})
                    os.kill(moments.choice(slots), signal.SIGKILL)
            case "batch":
                first.kill()
                first.wait()
                first = batch.start(*batch.cluster, "--wait", 60)
        now = {name: one["started"] for name, one in batch.records().items()}
        assert kept.items() <= now.items()
        kept = now
    assert set(killed) == {"scheduler", "worker", "batch"}
    if batch.code(first) != 0:  # a case whose worker was killed three times is for the next call
        assert batch.code(batch.start(*batch.cluster, "--wait", 60)) == 0, batch.log()
    found = batch.records()
    assert len(found) == KILLS
    assert kept.items() <= {name: one["started"] for name, one in found.items()}.items()
    assert [row["dsc"] for row in tables(batch.output)["slow"]] == ["1.0"] * KILLS
    batch.end()
    assert left_behind(batch.folder / "tmp", batch.output) == []
    assert [path.name for path in (batch.folder / "tmp").iterdir()] == [f"flare-{os.getuid()}"]


# As the command, but what may have been an engine's restart is over sooner.
IMPATIENT = (
    "import sys; from evaluation import __main__, harness; from evaluation.runners import docker;"
    "harness.PAUSE_S = 1.0; docker.ENGINE_TIMEOUT_S = 10.0; sys.exit(__main__.main())"
)


@pytest.mark.engine
def test_an_engine(tmp_path: Path) -> None:
    source = write_submission(tmp_path / "submission", {"good": SLOW})
    names = [f"good_{i:02}" for i in range(KILLS)]
    write_cases(tmp_path, names)
    image = engine.build_image(source)
    moments = random.Random(SEED)
    with OwnEngine() as own:
        own.take(image)
        engine.remove_image(image)
        words = command(tmp_path, option(image.name), "--resume")
        call = [sys.executable, "-c", IMPATIENT, *words[words.index("run") :]]
        variables = environment(tmp_path) | {"DOCKER_HOST": own.host}

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(call, cwd=engine.ROOT, env=variables, stdout=subprocess.DEVNULL)

        harness, kept = start(), dict[str, dict[str, object]]()
        for _ in range(KILLS):
            time.sleep(moments.uniform(0.2, 2.0))
            own.kill()
            time.sleep(moments.uniform(0.0, 0.5))
            own.start()
            now = records(tmp_path)
            now = {case: one for case, one in now.items() if one["state"] != "infra_error"}
            assert all(now[case]["started"] == one["started"] for case, one in kept.items())
            kept = now
            if harness.poll() is not None:
                harness = start()
        if harness.wait(120) != 0:  # it stops where a case fails three times: that is for the next
            assert start().wait(120) == 0
        left = own.docker("ps", "-aq", "--filter", f"label={OWNER_LABEL}").stdout
    assert left == ""
    assert any(int(str(one["attempts"])) > 1 for one in records(tmp_path).values())
    assert {case: row["dsc"] for case, row in rows(tmp_path).items()} == dict.fromkeys(names, "1.0")
    assert left_behind(tmp_path, tmp_path / "results") == []
