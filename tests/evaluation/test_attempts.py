"""Whole evaluations with a scripted runner: attempts, stops, and what a resumed run does again."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from evaluation.apart import Apart
from evaluation.cases import find
from evaluation.errors import EvaluationError
from evaluation.harness import ATTEMPTS, PAUSE_S, Plan, evaluate
from evaluation.pictures import drawing
from evaluation.record import Record
from evaluation.runners import InfrastructureError, InputError, Job
from evaluation.states import State
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.scripted import Act, Scenario, Scripted, write_mask
from tests.submissions import SHAPE, save, write_cases

BROKEN = InfrastructureError("the engine is gone")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


class Evaluation:
    """Evaluates cases, each named by a letter, into one output folder."""

    def __init__(self, folder: Path, names: str) -> None:
        self.folder, self.names = folder, names
        self.scans, self.labels = write_cases(folder, list(names))
        self.output = folder / "results"
        self.ran = ""  # in the last evaluation, a letter a run

    def run(self, act: Act = write_mask, *, resume: bool = False) -> dict[str, Record]:
        runner = Scripted(act)
        plan = Plan(
            submission=Scenario(by=runner),
            cases=find(self.scans, self.labels),
            output=self.output,
            conditions=CONDITIONS,
            gpu="none",
            resume=resume,
        )
        try:
            return {one.case: one for one in evaluate(plan, io.StringIO())}
        finally:
            self.ran = "".join(runner.jobs)
            assert runner.closed
            assert list(self.folder.glob("flare-*/run-*")) == []

    def table(self) -> dict[str, str]:
        """The cases of results.csv with their states, which tables.md must have too."""
        with (self.output / "results.csv").open() as file:
            found = {row["case"]: row["status"] for row in csv.DictReader(file)}
        assert f"Summary of {len(found)} case" in (self.output / "tables.md").read_text()
        return found

    def kept(self) -> str:
        """The cases that have a record."""
        return "".join(sorted(path.stem for path in (self.output / "cases").iterdir()))


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Nothing is drawn, and pauses are only counted."""
    taken: list[float] = []
    monkeypatch.setattr("time.sleep", taken.append)
    monkeypatch.setattr(drawing, "draw", lambda *_: [])
    return taken


def failing(*names: str) -> Act:
    """What fails in a run of these cases, once for each time that a case is named."""
    left = list("".join(names))

    def act(job: Job) -> None:
        if job.name in left:
            left.remove(job.name)
            raise BROKEN
        write_mask(job)

    return act


def test_a_case_that_the_machine_failed_is_tried_again(tmp_path: Path, pauses: list[float]) -> None:
    evaluation = Evaluation(tmp_path, "ab")
    found = evaluation.run(failing("aa"))
    assert evaluation.ran == "aaab"
    assert (found["a"].state, found["a"].attempts, found["a"].message) == (State.OK, 3, "")
    assert found["b"].attempts == 1
    assert found["a"].accuracy is not None
    assert found["a"].accuracy.dsc == 1.0
    assert pauses == [PAUSE_S, PAUSE_S]


def test_a_case_that_keeps_failing_says_each_reason_once(
    tmp_path: Path, pauses: list[float]
) -> None:
    reasons = iter(["no answer", "no disk", "no answer"])

    def act(_: Job) -> None:
        raise InfrastructureError(next(reasons))

    evaluation = Evaluation(tmp_path, "a")
    found = evaluation.run(act)["a"]
    assert (found.state, found.attempts) == (State.INFRA_ERROR, ATTEMPTS)
    assert found.message == "no answer; then: no disk"
    assert (found.usage, found.accuracy) == (None, None)
    assert len(pauses) == ATTEMPTS - 1  # not after the last
    assert evaluation.table() == {"a": "infra_error"}
    assert (evaluation.output / "logs" / "a.log").read_text() == found.message


def test_what_the_submission_fails_in_is_not_tried_again(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, "a")
    found = evaluation.run(lambda _: None)["a"]
    assert (evaluation.ran, found.state, found.attempts) == ("a", State.NO_OUTPUT, 1)
    assert found.accuracy is not None
    assert (found.accuracy.dsc, found.accuracy.lesion_sensitivity) == (0.0, 0.0)


def test_three_cases_in_a_row_stop_the_run_and_what_was_measured_is_kept(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, "abcdef")
    with pytest.raises(EvaluationError, match=r"^3 cases in a row .*: the engine is gone; .*--res"):
        evaluation.run(failing("bbb", "ccc", "ddd"))
    assert evaluation.ran == "abbbcccddd"
    assert evaluation.kept() == "abcd"
    assert evaluation.table() == {"a": "ok", **dict.fromkeys("bcd", "infra_error")}
    found = evaluation.run(resume=True)
    assert evaluation.ran == "bcdef"
    assert evaluation.table() == dict.fromkeys("abcdef", "ok")
    assert [one.attempts for one in found.values()] == [1] * 6


def test_failures_that_are_not_in_a_row_stop_nothing(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, "abcdef")
    found = evaluation.run(failing("aaa", "bbb", "ddd", "eee"))
    assert [one.state is State.OK for one in found.values()] == [False, False, True] * 2


def test_cases_that_failed_in_an_earlier_run_do_not_count_when_they_are_mended(
    tmp_path: Path,
) -> None:
    evaluation = Evaluation(tmp_path, "abcd")
    evaluation.run(failing("aaa", "bbb", "ddd"))
    found = evaluation.run(failing("aa"), resume=True)
    assert evaluation.ran == "aaabd"
    assert all(one.state is State.OK for one in found.values())


def test_a_submission_that_is_not_there_stops_at_once(tmp_path: Path) -> None:
    def act(_: Job) -> None:
        raise InputError("no such image")

    evaluation = Evaluation(tmp_path, "ab")
    with pytest.raises(InputError):
        evaluation.run(act)
    assert evaluation.ran == "a"
    assert not (evaluation.output / "cases").exists()


def test_a_case_that_was_measured_is_scored_without_being_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed in between."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    evaluation = Evaluation(tmp_path, "ab")
    with monkeypatch.context() as patched:
        patched.setattr(Apart, "call", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluation.run()
    record = evaluation.output / "cases" / "a.json"
    before = json.loads(record.read_text())
    assert (before["state"], before["accuracy"], evaluation.kept()) == ("ok", None, "a")
    assert not (evaluation.output / "results.csv").exists()  # there is nothing to say of it yet
    found = evaluation.run(resume=True)
    assert evaluation.ran == "b"
    after = json.loads(record.read_text())
    assert after["accuracy"]["dsc"] == 1.0
    assert {**after, "accuracy": None} == before
    assert [one.state for one in found.values()] == [State.OK, State.OK]


def test_an_interrupted_case_is_run_again_and_the_others_are_not(tmp_path: Path) -> None:
    def act(job: Job) -> None:
        write_mask(job)
        if job.name == "b":
            raise KeyboardInterrupt

    evaluation = Evaluation(tmp_path, "abc")
    with pytest.raises(KeyboardInterrupt):
        evaluation.run(act)
    assert (evaluation.kept(), evaluation.table()) == ("a", {"a": "ok"})
    evaluation.run(resume=True)
    assert evaluation.ran == "bc"
    assert evaluation.table() == dict.fromkeys("abc", "ok")


def test_an_interrupted_second_run_does_not_shorten_the_tables(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, "abcd")
    evaluation.run(failing("bbb"))

    def act(_: Job) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.run(act, resume=True)
    assert evaluation.ran == "b"
    assert evaluation.table() == {"a": "ok", "b": "infra_error", "c": "ok", "d": "ok"}


def test_cases_may_be_added_before_a_run_is_resumed(tmp_path: Path) -> None:
    Evaluation(tmp_path, "b").run()
    more = Evaluation(tmp_path, "abc")
    more.run(resume=True)
    assert more.ran == "ac"
    assert list(more.table()) == ["a", "b", "c"]


def test_a_reference_that_was_spoilt_is_found_before_a_failed_case_is_run_again(
    tmp_path: Path,
) -> None:
    evaluation = Evaluation(tmp_path, "ab")
    evaluation.run(failing("bbb"))
    save(evaluation.labels / "b.nii.gz", np.full(SHAPE, 7, np.uint8))
    with pytest.raises(EvaluationError, match=r"b\.nii\.gz: holds labels from 7 to 7"):
        evaluation.run(resume=True)
    assert evaluation.ran == ""


def test_what_a_killed_run_left_of_a_case_is_cleared_away(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, "a")
    work = tmp_path / f"flare-{os.getuid()}" / "run-killed"
    work.parent.mkdir(mode=0o700)
    save(work / "case-a" / "outputs" / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    assert evaluation.run()["a"].state is State.OK
    assert not work.exists()


def test_a_run_killed_before_its_record_was_kept_is_done_again(
    tmp_path: Path, pauses: list[float]
) -> None:
    """Its mask beside the record of an earlier failure is no case that only lacks its score."""
    evaluation = Evaluation(tmp_path, "a")
    failed = evaluation.run(failing("aaa"))["a"]
    assert (failed.state, failed.usage) == (State.INFRA_ERROR, None)
    save(evaluation.output / "predictions" / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    again = evaluation.run(resume=True)["a"]
    assert evaluation.ran == "a"
    assert again.usage is not None


def test_a_reference_that_has_changed_is_scored_against_anew_without_a_run(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, "ab")

    def act(job: Job) -> None:
        if job.name == "a":
            write_mask(job)
        else:
            save(job.work / "outputs" / "b.nii.gz", np.full(SHAPE, 7, np.uint8))

    assert evaluation.run(act)["b"].state is State.BAD_OUTPUT
    for name in "ab":
        save(evaluation.labels / f"{name}.nii.gz", np.zeros(SHAPE, np.uint8))
    found = evaluation.run(resume=True)
    assert evaluation.ran == ""
    assert found["a"].accuracy is not None
    assert found["a"].accuracy.dsc == 0.0  # there is no lesion any more
    assert found["b"].state is State.BAD_OUTPUT
    assert found["b"].accuracy is not None
    assert found["b"].accuracy.reference_ml == 0.0
    assert evaluation.run(resume=True) == found


def test_a_scan_that_has_changed_is_not_mixed_with_what_was_measured(tmp_path: Path) -> None:
    evaluation = Evaluation(tmp_path, "a")
    before = evaluation.run()
    save(evaluation.scans / "a_0000.nii.gz", np.ones(SHAPE, np.int16))
    with pytest.raises(
        EvaluationError, match=r"a_0000\.nii\.gz: is not the scan .* remove .*a\.js"
    ):
        evaluation.run(resume=True)
    (evaluation.output / "cases" / "a.json").unlink()
    assert evaluation.run(resume=True)["a"].scans_sha256 != before["a"].scans_sha256
