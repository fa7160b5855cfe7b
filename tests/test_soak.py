"""Three hundred runs in one process, with faults of all kinds among them: nothing piles up."""

from __future__ import annotations

import dataclasses
import gc
import io
import os
import random
import tempfile
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from evaluation import harness
from evaluation.cases import find
from evaluation.harness import Plan, evaluate
from evaluation.pictures import drawing
from evaluation.runners import InfrastructureError, Job, Outcome, cgroup, owner
from evaluation.runners.process import GROUP_PREFIX, OWNER_VARIABLE, ProcessRunner
from evaluation.runners.processes import descendants, with_variable
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.scripted import Scenario
from tests.submissions import BEHAVIOURS, COPY, Behaviour, write_cases, write_submission
from tests.test_harness import records

pytestmark = pytest.mark.slow

RUNS, WARM = 300, 30
MOST_MIB = 20.0  # that the process may grow by in between
SEED = 20241122
GOOD = BEHAVIOURS["good"]
FAULTS = BEHAVIOURS | {
    "killed": Behaviour("nonzero_exit", "kill -9 $$"),
    "lingering": Behaviour("ok", f"setsid sleep 600 & {COPY}", make=GOOD.make),
    "chatty": Behaviour("ok", f"seq 1 100000; {COPY}", make=GOOD.make),
    "many": Behaviour("bad_output", "cd outputs; seq 1 1500 | xargs touch; sleep 9"),
}
LIMITS = replace(CONDITIONS.limits, memory_mib=128)


class Faulty(ProcessRunner):
    """At some runs the machine fails, before, within or after; at others Ctrl-C is pressed."""

    def __init__(self, source: Path, moments: random.Random) -> None:
        super().__init__("sh predict.sh", source, LIMITS, None, dict(os.environ))
        self._moments = moments
        self._failed: set[str] = set()  # each case once: the next attempt goes well

    def run(self, job: Job) -> Outcome:
        if job.name.startswith("sleep"):
            job = dataclasses.replace(job, timeout_s=0.3)
        fault = self._moments.choices([None, "before", "within", "interrupt"], [80, 8, 8, 4])[0]
        if fault is None or job.name in self._failed:
            return super().run(job)
        self._failed.add(job.name)
        error = KeyboardInterrupt() if fault == "interrupt" else InfrastructureError("gone")
        if fault == "before":
            raise error
        ticks = self._moments.randrange(3)

        def watch() -> str | None:
            nonlocal ticks
            ticks -= 1
            if ticks < 0:
                raise error
            return job.watch()

        super().run(dataclasses.replace(job, watch=watch))
        raise error  # it had ended before


class Watched(io.StringIO):
    """Takes the progress, and notes how large this process is at each line."""

    def __init__(self) -> None:
        super().__init__()
        self.rss_mib: list[float] = []

    def write(self, text: str) -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.rss_mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        return len(text)


def held() -> tuple[set[str], set[int], set[threading.Thread]]:
    """The descriptors, child processes and threads that there are."""
    gc.collect()
    paths = [path for path in Path("/proc/self/fd").iterdir() if path.exists()]
    descriptors = {str(path.readlink()) for path in paths}
    return descriptors, descendants(os.getpid()), set(threading.enumerate())


def test_nothing_piles_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(drawing, "draw", lambda *_: [])
    monkeypatch.setattr(harness, "PAUSE_S", 0.0)
    chosen = random.Random(SEED)
    kinds = [chosen.choice([*FAULTS, *["good"] * 10]) for _ in range(RUNS)]
    names = [f"{kind}_{i:03}" for i, kind in enumerate(kinds)]
    scans, labels = write_cases(tmp_path, names)
    source = write_submission(tmp_path / "submission", FAULTS)
    conditions = replace(CONDITIONS, limits=LIMITS, timeout_s=60.0)
    cases, moments, progress = find(scans, labels), random.Random(SEED), Watched()
    before, interrupts = held(), 0
    while True:
        by = Scenario(by=Faulty(source, moments))
        output = tmp_path / "results"
        try:
            evaluate(Plan(by, cases, output, conditions, gpu="none", resume=True), progress)
            break
        except KeyboardInterrupt:
            interrupts += 1
    assert held() == before
    assert interrupts > 3
    found = records(tmp_path)
    assert {name: one["state"] for name, one in found.items()} == {
        name: FAULTS[kind].state for name, kind in zip(names, kinds, strict=True)
    }
    assert len({str(one["started"]) for one in found.values()}) == RUNS
    assert sum(int(str(one["attempts"])) > 1 for one in found.values()) > RUNS // 20
    assert owner.token() not in with_variable(OWNER_VARIABLE).values()
    assert not cgroup.existing(GROUP_PREFIX + owner.token().replace(":", "+"))
    assert list(tmp_path.glob("flare-*/run-*")) == list(output.rglob("*.unfinished")) == []
    assert max(progress.rss_mib[WARM:]) - progress.rss_mib[WARM] < MOST_MIB
