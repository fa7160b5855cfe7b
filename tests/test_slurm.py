"""The Slurm template, on a real slurmctld and slurmd; submissions run as processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine
from tests.evening import PRELOAD, Evening, tables
from tests.submissions import BEHAVIOURS, Behaviour

TEMPLATE = engine.ROOT / "evaluation" / "batch" / "deploy" / "slurm.sh"
GOOD = BEHAVIOURS["good"]
CASES = 4

pytestmark = pytest.mark.slurm


class Slurm:
    """Jobs of one evening's workers."""

    def __init__(self, evening: Evening) -> None:
        self.evening = evening
        self.jobs: list[str] = []

    def submit(self) -> str:
        """Submit the template as its first lines say; return the job's number."""
        said = subprocess.run(
            [
                *("sbatch", "--parsable", "--nodes=1"),
                f"--output={self.evening.folder}/slurm-%j.log",
                *(str(TEMPLATE), self.evening.address, "--slots", "2", "--scorers", "1"),
                f"--certificates={self.evening.certificates}",
            ],
            cwd=engine.ROOT,
            env=self.evening.variables(),
            check=True,
            capture_output=True,
            text=True,
        )
        self.jobs.append(said.stdout.strip())
        return self.jobs[-1]

    def end(self) -> None:
        """Cancel what is left and wait until it has gone."""
        subprocess.run(["scancel", *self.jobs], check=False)
        self.evening.wait_for(lambda: not (set(self.jobs) & set(self.listed())), 60)

    def listed(self) -> list[str]:
        """The jobs that wait or run."""
        queue = ["squeue", "--noheader", "--format=%i"]
        return subprocess.run(queue, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    one = Slurm(Evening(tmp_path / "evening", {PRELOAD: "tests.evaluation.batch.processes"}))
    yield one
    one.end()
    one.evening.end()


def test_workers_of_a_job_that_is_cancelled_are_replaced_by_those_of_the_next(
    slurm: Slurm,
) -> None:
    evening = slurm.evening
    evening.add_folder("slow", Behaviour("ok", f"sleep 2; {GOOD.script}", make=GOOD.make))
    evening.write_cases(CASES)
    evening.scheduler()
    done = evening.batch(*evening.cluster)
    first = slurm.submit()
    evening.wait_for(lambda: evening.records())
    before = {name: one["started"] for name, one in evening.records().items()}
    subprocess.run(["scancel", first], check=True)
    evening.wait_for(lambda: first not in slurm.listed(), 60)
    slurm.submit()
    assert evening.code(done) == 0, evening.log()
    after = {name: one["started"] for name, one in evening.records().items()}
    assert len(after) == CASES
    assert before.items() <= after.items()
    assert [row["status"] for row in tables(evening.output)["slow"]] == ["ok"] * CASES
