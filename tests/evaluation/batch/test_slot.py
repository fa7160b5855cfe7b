"""What one worker does with a case, without a scheduler; submissions run as processes."""

from __future__ import annotations

import json
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs, to_builtins

from evaluation.batch import archives
from evaluation.batch.machine import Machine
from evaluation.batch.messages import Done, Entrant, Failed, Lost, Refused
from evaluation.batch.slot import Slot
from evaluation.cases import find
from evaluation.states import State
from evaluation.store import Store
from tests.evaluation.batch import NOTHING, processes
from tests.evaluation.challenges import CONDITIONS
from tests.submissions import BEHAVIOURS, SHAPE, Behaviour, save, write_cases, write_submission

GOOD = BEHAVIOURS["good"]


class Setting:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cases = find(*write_cases(folder, ["a", "b"]))
        self.machine = Machine(folder / "machine")
        results = folder / "results" / "team"
        self.team = Entrant("team", folder / "team.tar.gz", results, CONDITIONS, 1024, NOTHING)
        self.team.folder.mkdir(parents=True)
        self.store = Store(self.team.folder)
        self.write(GOOD)

    def write(self, behaviour: Behaviour | None) -> None:
        """Hand in another submission; None: one without predict.sh."""
        source = self.folder / f"source-{time.monotonic_ns()}"
        write_submission(source, {"": behaviour or GOOD})
        with tarfile.open(self.team.archive, "w:gz") as tar:
            for part in source.iterdir():
                if behaviour or part.name != "predict.sh":
                    tar.add(part, part.name)

    def slot(self, device: str = "slot-0") -> Slot:
        return Slot(self.machine, device, None)

    def verdict(self) -> dict[str, object]:
        return dict(json.loads((self.team.folder / "submission.json").read_text()))


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.setattr(archives, "runner", processes.runner)
    return Setting(tmp_path)


def test_a_case_is_run_once_and_scored_once(setting: Setting) -> None:
    slot, case = setting.slot(), setting.cases[0]
    first = slot.measure(setting.team, case, 1)
    assert isinstance(first, Done)
    assert (first.record.state, first.record.accuracy) == (State.OK, None)
    assert slot.measure(setting.team, case, 1) == first
    scored = slot.score(setting.team, case)
    assert isinstance(scored, Done)
    assert scored.record.accuracy is not None
    assert scored.record.accuracy.dsc == 1.0
    assert scored.record == setting.store.load("a")
    assert slot.score(setting.team, case) == scored
    assert sorted(path.name for path in (setting.team.folder / "overlays").iterdir()) == [
        "a-largest.png",
        "a-worst.png",
    ]
    assert setting.verdict() == {
        "archive": str(setting.team.archive),
        "image": "team.tar.gz",
        "state": "ok",
        "message": "",
        "handed_in": to_builtins(NOTHING),
    }
    slot.release()


def test_a_case_that_another_worker_is_at_is_waited_for_and_not_run_twice(
    setting: Setting,
) -> None:
    setting.write(Behaviour("ok", f"sleep 1; {GOOD.script}", make=GOOD.make))
    answers: list[object] = []
    workers = [
        threading.Thread(
            target=lambda slot=slot: answers.append(slot.measure(setting.team, setting.cases[0], 1))
        )
        for slot in (setting.slot("slot-0"), setting.slot("slot-1"))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert answers[0] == answers[1]
    assert isinstance(answers[0], Done)


def test_what_cannot_be_run_is_refused_and_that_is_kept(setting: Setting) -> None:
    setting.write(None)
    answer = setting.slot().measure(setting.team, setting.cases[0], 1)
    assert answer == Refused(f"{setting.team.archive}: no predict.sh")
    assert setting.verdict()["state"] == "refused"
    assert setting.verdict()["image"] is None
    assert "no predict.sh" in str(setting.verdict()["message"])
    assert setting.store.load("a") is None


def test_results_of_other_conditions_are_not_mixed(setting: Setting) -> None:
    slot = setting.slot()
    assert isinstance(slot.measure(setting.team, setting.cases[0], 1), Done)
    other = replace(setting.team, conditions=structs.replace(CONDITIONS, timeout_s=61.0))
    answer = slot.measure(other, setting.cases[1], 1)
    assert isinstance(answer, Refused)
    assert "timeout_s was 3600.0, is 61.0" in answer.message
    assert setting.verdict()["state"] == "ok"


def test_a_worker_that_is_told_to_stop_ends_its_submission(setting: Setting) -> None:
    setting.write(Behaviour("ok", "sleep 600"))
    slot = setting.slot()
    answers: list[object] = []
    worker = threading.Thread(
        target=lambda: answers.append(slot.measure(setting.team, setting.cases[0], 1))
    )
    worker.start()
    while not list(setting.machine.folder.glob("run-*/case-*/inputs/*")):
        time.sleep(0.02)
    slot.stop()
    worker.join(10)
    assert answers == [Lost()]
    assert setting.store.load("a") is None
    assert list(setting.machine.folder.glob("run-*")) == []
    setting.write(GOOD)
    assert isinstance(slot.measure(setting.team, setting.cases[0], 1), Done)
    slot.release()


def test_a_job_s_end_that_its_submission_hears_first_is_not_the_submission_s_failure(
    setting: Setting,
) -> None:
    setting.write(Behaviour("nonzero_exit", "touch outputs/heard; kill -TERM $$; sleep 600"))
    slot = setting.slot()

    def end() -> None:
        while not list(setting.machine.folder.glob("run-*/case-*/outputs/heard")):
            time.sleep(0.001)
        time.sleep(0.3)
        slot.end()

    batch_system = threading.Thread(target=end)
    batch_system.start()
    assert slot.measure(setting.team, setting.cases[0], 1) == Lost()
    batch_system.join()
    assert setting.store.load("a") is None


def test_a_machine_that_fails_says_so_and_the_attempt_is_counted(setting: Setting) -> None:
    slot = setting.slot()
    setting.team.archive.unlink()
    answer = slot.measure(setting.team, setting.cases[0], 1)
    assert isinstance(answer, Failed)
    assert "team.tar.gz" in answer.message
    setting.write(GOOD)
    again = slot.measure(setting.team, setting.cases[0], 2)
    assert isinstance(again, Done)
    assert again.record.attempts == 2
    slot.release()


def test_a_reference_that_has_changed_is_scored_against_anew(setting: Setting) -> None:
    slot = setting.slot()
    slot.measure(setting.team, setting.cases[0], 1)
    slot.release()
    slot.score(setting.team, setting.cases[0])
    save(setting.folder / "labels" / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    answer = slot.score(setting.team, setting.cases[0])
    assert isinstance(answer, Done)
    assert answer.record.accuracy is not None
    assert answer.record.accuracy.dsc == 0.0


def test_a_record_that_is_gone_cannot_be_scored(setting: Setting) -> None:
    answer = setting.slot().score(setting.team, setting.cases[0])
    assert answer == Failed(f"{setting.store.path('a')}: is not there any more")
