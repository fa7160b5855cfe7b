"""Shell scripts as submissions, for one kind of runner after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from evaluation.cases import find
from evaluation.runners import (
    Job,
    Limits,
    Outcome,
    Runner,
)
from evaluation.runners.docker import DockerRunner, connect
from evaluation.runners.process import ProcessRunner
from evaluation.staging import stage
from tests.evaluation.challenges import FLARE24
from tests.submissions import write_cases

SMALL = replace(Limits(), memory_mib=128, shm_mib=32, tmp_mib=16, pids=40)


class Scripts:
    """Runs scripts with one kind of runner."""

    def __init__(self, kind: str, image: str | None, folder: Path) -> None:
        self.kind, self.image, self.folder = kind, image, folder
        (folder / "source").mkdir()
        (folder / "source" / "predict.sh").write_text(". inputs/script\n")

    def runner(self, limits: Limits = SMALL) -> Runner:
        if self.kind == "process":
            return ProcessRunner(
                "sh predict.sh", self.folder / "source", limits, None, dict(os.environ)
            )
        assert self.image is not None
        return DockerRunner(connect(), self.image, limits, None, FLARE24.contract)

    def not_enforced(self) -> list[str]:
        """The limits that its runner says are not in force."""
        runner = self.runner()
        limits = runner.describe()["limits"]
        runner.close()
        assert isinstance(limits, dict)
        return list(limits["not_enforced"])

    def work(self, script: str) -> Path:
        work = self.folder / f"work{len(list(self.folder.iterdir()))}"
        work.mkdir()
        scans, _ = write_cases(self.folder, ["a"])
        stage(find(scans)[0], work, FLARE24.contract)
        (work / "inputs" / "script").write_text(script + "\n")
        return work

    def run(
        self,
        script: str,
        limits: Limits = SMALL,
        timeout_s: float = 20.0,
        watch: Callable[[], str | None] = lambda: None,
    ) -> Outcome:
        runner = self.runner(limits)
        try:
            return runner.run(Job("a", self.work(script), timeout_s, watch))
        finally:
            runner.close()
