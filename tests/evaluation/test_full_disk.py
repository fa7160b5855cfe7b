"""A disk that fills up, wherever that is noticed: nothing is lost, and with room it goes on."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from evaluation import disk, harness
from evaluation.cases import find
from evaluation.gpu.curve import Curve
from evaluation.gpu.curve_file import write_curve
from evaluation.harness import Plan, evaluate
from evaluation.pictures import drawing
from evaluation.runners import Job
from evaluation.states import State
from evaluation.store import Store
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.scripted import Scenario, Scripted, write_mask
from tests.submissions import write_cases

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@contextlib.contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A disk of so many KiB at a folder, and the file that fills it."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder / "filler"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("folder", ["predictions", "logs", "cases", ""])
def test_what_cannot_be_kept_stops_the_run_which_goes_on_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """predictions: masks; logs; cases: the records; "": tables, and everything else, too."""
    monkeypatch.setattr(drawing, "draw", lambda *_: [])
    monkeypatch.setattr(harness, "PAUSE_S", 0.0)
    monkeypatch.setattr(disk, "FREE_MIB", 0)  # as if the disk had filled after it was looked at
    scans, labels = write_cases(tmp_path, ["a", "b"])
    output = tmp_path / "results"

    def run(runner: Scripted, *, resume: bool) -> dict[str, State]:
        cases, submission = find(scans, labels), Scenario(by=runner)
        plan = Plan(submission, cases, output, CONDITIONS, gpu="none", resume=resume)
        return {one.case: one.state for one in evaluate(plan, io.StringIO())}

    with small_disk(output / folder, 4096) as filler:

        def act(job: Job) -> None:
            write_mask(job)
            if job.name == "b":
                fill(filler)

        if folder != "predictions":
            with pytest.raises(OSError, match="No space left on device") as raised:
                run(Scripted(act), resume=False)
            assert str(raised.value.filename).startswith(str(output / folder))
            assert Store(output).load("b") is None  # not half of it
        else:  # it is known before a record is written, which says so
            assert run(Scripted(act), resume=False)["b"] is State.INFRA_ERROR
        before = Store(output).load("a")
        assert before is not None
        assert before.is_scored
        assert list(output.rglob("*.unfinished")) == []
        filler.unlink()
        again = Scripted(write_mask)
        assert run(again, resume=True) == {"a": State.OK, "b": State.OK}
        assert again.jobs == ["b"]
        assert Store(output).load("a") == before
        assert (output / "results.csv").exists()


def test_half_a_curve_is_none(tmp_path: Path) -> None:
    times_s = np.arange(20000.0)
    curve = Curve(times_s, times_s + 0.5, *np.random.default_rng(0).random((4, 20000)))
    path = tmp_path / "curves" / "a.csv.gz"
    with small_disk(path.parent, 256), pytest.raises(OSError, match="No space") as raised:
        write_curve(path, curve, 0.0)
    assert str(raised.value.filename) == str(path)
    assert list(path.parent.iterdir()) == []
