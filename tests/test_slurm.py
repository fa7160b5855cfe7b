"""The Slurm template, on a real slurmctld and slurmd; submissions run as processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine
from tests.small_batch import PRELOAD, SmallBatch, tables
from tests.submissions import BEHAVIOURS, Behaviour

TEMPLATE = engine.ROOT / "evaluation" / "batch" / "deploy" / "slurm.sh"
GOOD = BEHAVIOURS["good"]
CASES = 4

pytestmark = pytest.mark.slurm


class Slurm:
    """Jobs of one batch's workers."""

    def __init__(self, batch: SmallBatch) -> None:
        self.batch = batch
        self.jobs: list[str] = []

    def submit(self) -> str:
        """Submit the template as its first lines say; return the job's number."""
        said = subprocess.run(
            [
                *("sbatch", "--parsable", "--nodes=1"),
                f"--output={self.batch.folder}/slurm-%j.log",
                *(str(TEMPLATE), self.batch.address, "--slots", "2", "--scorers", "1"),
                f"--certificates={self.batch.certificates}",
            ],
            cwd=engine.ROOT,
            env=self.batch.variables(),
            check=True,
            capture_output=True,
            text=True,
        )
        self.jobs.append(said.stdout.strip())
        return self.jobs[-1]

    def end(self) -> None:
        """Cancel what is left and wait until it has gone."""
        subprocess.run(["scancel", *self.jobs], check=False)
        self.batch.wait_for(lambda: not (set(self.jobs) & set(self.listed())), 60)

    def listed(self) -> list[str]:
        """The jobs that wait or run."""
        queue = ["squeue", "--noheader", "--format=%i"]
        return subprocess.run(queue, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    one = Slurm(SmallBatch(tmp_path / "batch", {PRELOAD: "tests.evaluation.batch.processes"}))
    yield one
    one.end()
    one.batch.end()


def test_workers_of_a_job_that_is_cancelled_are_replaced_by_those_of_the_next(
    slurm: Slurm,
) -> None:
    batch = slurm.batch
    batch.add_folder("slow", Behaviour("ok", f"sleep 2; {GOOD.script}", make=GOOD.make))
    batch.write_cases(CASES)
    batch.scheduler()
    done = batch.start(*batch.cluster)
    first = slurm.submit()
    batch.wait_for(lambda: batch.records())
    before = {name: one["started"] for name, one in batch.records().items()}
    subprocess.run(["scancel", first], check=True)
    batch.wait_for(lambda: first not in slurm.listed(), 60)
    slurm.submit()
    assert batch.code(done) == 0, batch.log()
    after = {name: one["started"] for name, one in batch.records().items()}
    assert len(after) == CASES
    assert before.items() <= after.items()
    assert [row["status"] for row in tables(batch.output)["slow"]] == ["ok"] * CASES
