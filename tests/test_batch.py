"""The proof: four submissions, six cases, two workers, a real engine, and everything goes wrong."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine
from tests.frozen import FreezableEngine
from tests.small_batch import PRELOAD, SmallBatch, containers, tables, timed
from tests.submissions import BEHAVIOURS, Behaviour, lesion, save

SEED = 20241122
GOOD = BEHAVIOURS["good"]
TEAMS = {
    "good": GOOD,
    "slow": Behaviour("ok", f"sleep 2; {GOOD.script}", make=GOOD.make),
    "crash": Behaviour("nonzero_exit", "echo no weights; exit 3"),
    # Looks for the reference everywhere, and hands in an empty mask if there is none.
    "cheat": Behaviour(
        "ok",
        'found=$(find / -xdev -name "$name.nii.gz" -not -path "*/outputs/*" | head -n 1);'
        'cp "${found:-$made}" "$mask"',
        make=lambda path: save(path, 0 * lesion()),
    ),
}
CASES = 6

pytestmark = pytest.mark.engine


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[SmallBatch]:
    one = SmallBatch(tmp_path / "batch")
    one.write_cases(CASES)
    yield one
    one.end()
    for team in TEAMS:
        engine.docker("rmi", "--force", f"{team}:latest", check=False)


def serial(batch: SmallBatch, output: Path) -> None:
    """What `run` makes of each archive, one after the other and undisturbed."""
    for team in TEAMS:
        archive = batch.submissions / f"{team}.tar.gz"
        command: list[str | Path] = [sys.executable, "-m", "evaluation", "run"]
        command += ["--archive", archive, "--output", output / team]
        command += ["--cases", batch.folder / "scans", "--labels", batch.folder / "labels"]
        command += ["--gpu", "none", "--timeout", "60"]
        subprocess.run(command, cwd=engine.ROOT, check=False, stdout=subprocess.DEVNULL)
        engine.docker("rmi", f"{team}:latest")


def kill_a_worker(batch: SmallBatch) -> None:
    """Kill a worker in a timed run: its container stays, as it would if the kernel had done it."""
    victims: list[int] = []

    def found() -> bool:
        victims.extend(timed())
        return bool(victims)

    batch.wait_for(found)
    os.kill(victims[0], signal.SIGKILL)


def test_killed_workers_a_restarted_scheduler_and_a_resumed_run_change_no_table(
    batch: SmallBatch,
) -> None:
    for team, behaviour in TEAMS.items():
        batch.add_image(team, behaviour)
    serial(batch, batch.folder / "serial")
    moments = random.Random(SEED)

    scheduler = batch.scheduler()
    batch.workers("--slots", 2, "--scorers", 1)
    first = batch.start(*batch.cluster, "--wait", 60)
    total = CASES * len(TEAMS)
    kept: dict[str, str] = {}

    def measured(at_least: int) -> None:
        """Wait for so many records; what there was before must be there still, and not anew."""
        batch.wait_for(lambda: len(batch.records()) >= at_least)
        now = {name: one["started"] for name, one in batch.records().items()}
        assert kept.items() <= now.items()
        kept.update(now)

    measured(moments.randint(2, 4))
    kill_a_worker(batch)
    measured(moments.randint(6, 8))
    scheduler.kill()
    scheduler.wait()
    scheduler = batch.scheduler()
    measured(moments.randint(10, 12))
    first.kill()
    assert first.wait() == -signal.SIGKILL
    second = batch.start(*batch.cluster, "--wait", 60)
    measured(moments.randint(14, 16))
    kill_a_worker(batch)
    measured(total)
    assert batch.code(second) == 0, batch.log()

    measured(total)
    assert len(kept) == total
    found, expected = tables(batch.output), tables(batch.folder / "serial")
    assert found == expected
    assert {row["dsc"] for row in found["cheat"]} == {"0.0"}
    assert {row["message"] for row in found["crash"]} == {"exit code 3: no weights"}
    for team in TEAMS:
        masks = sorted((batch.folder / "serial" / team / "predictions").glob("*"))
        again = sorted((batch.output / team / "predictions").glob("*"))
        assert [path.read_bytes() for path in again] == [path.read_bytes() for path in masks]
        images = engine.docker("images", "--quiet", team).stdout
        assert images == "", f"{team} is still loaded"
    assert containers() == {}


def test_an_engine_that_stops_answering_fails_its_worker_alone(batch: SmallBatch) -> None:
    batch.environment[PRELOAD] = "tests.evaluation.batch.impatient"
    batch.add_image("slow", TEAMS["slow"])
    batch.scheduler()
    with FreezableEngine(batch.folder / "engine.sock") as frozen:
        batch.workers("--slots", 1, "--scorers", 1)
        # As if on a machine of its own: another engine, other locks.
        other = batch.folder / "other"
        other.mkdir()
        batch.workers("--slots", 1, "--scorers", 0, DOCKER_HOST=frozen.host, TMPDIR=str(other))
        done = batch.start(*batch.cluster, "--timeout", 15)

        def at_work_there() -> bool:
            return any(frozen.host in Path(f"/proc/{pid}/environ").read_text() for pid in timed())

        batch.wait_for(at_work_there)
        frozen.freeze()
        assert batch.code(done) == 0, batch.log()
        assert len(batch.records()) == CASES
        assert {one["state"] for one in batch.records().values()} == {"ok"}
        assert "failed: case" in batch.log()
        frozen.thaw()
        batch.end()
    assert containers() == {}
