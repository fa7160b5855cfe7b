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
from tests.evening import PRELOAD, Evening, containers, tables, timed
from tests.frozen import FreezableEngine
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
def evening(tmp_path: Path) -> Iterator[Evening]:
    one = Evening(tmp_path / "evening")
    one.write_cases(CASES)
    yield one
    one.end()
    for team in TEAMS:
        engine.docker("rmi", "--force", f"{team}:latest", check=False)


def serial(evening: Evening, output: Path) -> None:
    """What `run` makes of each archive, one after the other and undisturbed."""
    for team in TEAMS:
        archive = evening.submissions / f"{team}.tar.gz"
        command: list[str | Path] = [sys.executable, "-m", "evaluation", "run"]
        command += ["--archive", archive, "--output", output / team]
        command += ["--cases", evening.folder / "scans", "--labels", evening.folder / "labels"]
        command += ["--gpu", "none", "--timeout", "60"]
        subprocess.run(command, cwd=engine.ROOT, check=False, stdout=subprocess.DEVNULL)
        engine.docker("rmi", f"{team}:latest")


def kill_a_worker(evening: Evening) -> None:
    """Kill a worker in a timed run: its container stays, as it would if the kernel had done it."""
    victims: list[int] = []

    def found() -> bool:
        victims.extend(timed())
        return bool(victims)

    evening.wait_for(found)
    os.kill(victims[0], signal.SIGKILL)


def test_killed_workers_a_restarted_scheduler_and_a_resumed_run_change_no_table(
    evening: Evening,
) -> None:
    for team, behaviour in TEAMS.items():
        evening.add_image(team, behaviour)
    serial(evening, evening.folder / "serial")
    moments = random.Random(SEED)

    scheduler = evening.scheduler()
    evening.workers("--slots", 2, "--scorers", 1)
    first = evening.batch(*evening.cluster, "--wait", 60)
    total = CASES * len(TEAMS)
    kept: dict[str, str] = {}

    def measured(at_least: int) -> None:
        """Wait for so many records; what there was before must be there still, and not anew."""
        evening.wait_for(lambda: len(evening.records()) >= at_least)
        now = {name: one["started"] for name, one in evening.records().items()}
        assert kept.items() <= now.items()
        kept.update(now)

    measured(moments.randint(2, 4))
    kill_a_worker(evening)
    measured(moments.randint(6, 8))
    scheduler.kill()
    scheduler.wait()
    scheduler = evening.scheduler()
    measured(moments.randint(10, 12))
    first.kill()
    assert first.wait() == -signal.SIGKILL
    second = evening.batch(*evening.cluster, "--wait", 60)
    measured(moments.randint(14, 16))
    kill_a_worker(evening)
    measured(total)
    assert evening.code(second) == 0, evening.log()

    measured(total)
    assert len(kept) == total
    found, expected = tables(evening.output), tables(evening.folder / "serial")
    assert found == expected
    assert {row["dsc"] for row in found["cheat"]} == {"0.0"}
    assert {row["message"] for row in found["crash"]} == {"exit code 3: no weights"}
    for team in TEAMS:
        masks = sorted((evening.folder / "serial" / team / "predictions").glob("*"))
        again = sorted((evening.output / team / "predictions").glob("*"))
        assert [path.read_bytes() for path in again] == [path.read_bytes() for path in masks]
        images = engine.docker("images", "--quiet", team).stdout
        assert images == "", f"{team} is still loaded"
    assert containers() == {}


def test_an_engine_that_stops_answering_fails_its_worker_alone(evening: Evening) -> None:
    evening.environment[PRELOAD] = "tests.evaluation.batch.impatient"
    evening.add_image("slow", TEAMS["slow"])
    evening.scheduler()
    with FreezableEngine(evening.folder / "engine.sock") as frozen:
        evening.workers("--slots", 1, "--scorers", 1)
        # As if on a machine of its own: another engine, other locks.
        other = evening.folder / "other"
        other.mkdir()
        evening.workers("--slots", 1, "--scorers", 0, DOCKER_HOST=frozen.host, TMPDIR=str(other))
        done = evening.batch(*evening.cluster, "--timeout", 15)

        def at_work_there() -> bool:
            return any(frozen.host in Path(f"/proc/{pid}/environ").read_text() for pid in timed())

        evening.wait_for(at_work_there)
        frozen.freeze()
        assert evening.code(done) == 0, evening.log()
        assert len(evening.records()) == CASES
        assert {one["state"] for one in evening.records().values()} == {"ok"}
        assert "failed: case" in evening.log()
        frozen.thaw()
        evening.end()
    assert containers() == {}
