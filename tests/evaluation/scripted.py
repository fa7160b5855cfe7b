"""A runner whose submission is a function in the test: nothing is started."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from evaluation.conditions import Conditions
from evaluation.gpu.devices import Gpu
from evaluation.runners import Job, Outcome, Runner
from evaluation.submission import Submission
from tests.submissions import lesion, save

ENDED_WELL = Outcome(
    created_s=100.0,
    started_s=101.0,
    finished_s=103.0,
    removed_s=104.0,
    exit_code=0,
    stopped=None,
    log="done\n",
)
Act = Callable[[Job], Outcome | None]  # None: it ended well


@dataclass
class Scripted:
    """Calls `act` for every job; `jobs` are the names of those that there were."""

    act: Act
    jobs: list[str] = field(default_factory=list)
    closed: bool = False

    def describe(self) -> dict[str, object]:
        return {"runner": "scripted", "command": "scripted"}

    def run(self, job: Job) -> Outcome:
        self.jobs.append(job.name)
        assert job.watch() is None
        return self.act(job) or ENDED_WELL

    def owns(self, cgroup: str, session: int | None) -> bool:
        return False

    def reap(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Scenario(Submission):
    """A submission that a given runner runs."""

    by: Runner | None = None

    def runner(self, conditions: Conditions, gpu: Gpu | None) -> Runner:
        assert self.by is not None
        return self.by


def write_mask(job: Job) -> None:
    """What a good submission does."""
    save(job.work / "outputs" / f"{job.name}.nii.gz", lesion())
