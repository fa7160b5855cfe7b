"""The loop between board and cluster, where the cluster is the test's."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation.batch.board import Board, Kind, Place
from evaluation.batch.dispatch import Dispatch
from evaluation.batch.messages import Answer, Done, Entrant, Failed, Lost, Refused
from evaluation.batch.slot import Slot
from evaluation.cases import find
from tests.evaluation.batch import NOTHING
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.records import RECORD
from tests.submissions import write_cases

Act = Callable[[str, str], Answer | None]  # of a method's name and a case's


class FakeCluster:
    """Workers that answer at once; `visible` says what is there at each look."""

    def __init__(self, act: Act, visible: Iterator[dict[str, Place] | None]) -> None:
        self.act, self.visible = act, visible
        self.answers: list[tuple[str, Answer | None]] = []
        self.calls: list[tuple[str, str, str]] = []
        self.stopped = False

    def workers(self) -> dict[str, Place] | None:
        return next(self.visible)

    def start(self, worker: str, method: Callable[..., Any], *arguments: Any) -> None:
        case = arguments[1].name if arguments else ""
        self.calls.append((worker, method.__name__, case))
        self.answers.append((worker, self.act(method.__name__, case)))

    def ended(self, _: float) -> Iterator[tuple[str, Answer | None]]:
        answers, self.answers = self.answers, []
        yield from answers

    def stop(self) -> None:
        self.stopped = True


class Setting:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cases = find(*write_cases(folder, ["a", "b"]))
        self.teams = [Entrant("x", folder / "x.tar.gz", folder / "x", CONDITIONS, 1024, NOTHING)]
        self.board = Board({"x": ["a", "b"]}, {})
        self.now = 0.0
        self.out = io.StringIO()
        monkeypatch.setattr("time.monotonic", self._clock)

    def _clock(self) -> float:
        self.now += 0.6
        return self.now

    def run(
        self, act: Act, *visible: dict[str, Place] | None, kind: type[FakeCluster] = FakeCluster
    ) -> FakeCluster:
        """The last of what is visible stays."""

        def looks() -> Iterator[dict[str, Place] | None]:
            yield from visible
            while True:
                yield visible[-1]

        cluster = kind(act, looks())
        Dispatch(self.teams, self.cases, self.board, cluster, 10.0, self.out).all()  # type: ignore[arg-type]
        assert cluster.stopped
        return cluster


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    return Setting(tmp_path, monkeypatch)


BOTH = {"1": Place("m", Kind.GPU), "2": Place("m", Kind.CPU)}


def good(method: str, case: str) -> Answer | None:
    return None if method == Slot.release.__name__ else Done(RECORD, "a remark")


def test_every_case_is_run_then_scored_and_the_image_given_back(setting: Setting) -> None:
    cluster = setting.run(good, BOTH)
    assert cluster.calls == [
        ("1", "measure", "a"),
        ("1", "measure", "b"),
        ("1", "release", ""),
        ("2", "score", "a"),
        ("2", "score", "b"),
    ]
    lines = setting.out.getvalue().splitlines()
    assert lines[0] == "[    1/4] run x/a  ok  12.0 s  a remark"
    assert lines[-1].startswith("[    4/4] score x/b  ok  DSC 0.812 NSD 0.500")


def test_without_workers_it_waits_as_long_as_told_and_says_for_what(setting: Setting) -> None:
    setting.run(good, {})
    assert setting.now > 10
    assert "waiting up to 10 s: there is no worker that runs submissions" in setting.out.getvalue()
    assert setting.board.given_up == dict.fromkeys(
        (("x", "a"), ("x", "b")), "there is no worker that runs submissions"
    )


def test_a_worker_that_comes_late_is_used(setting: Setting) -> None:
    setting.run(good, {}, {}, BOTH)
    assert setting.board.given_up == {}


def test_a_scheduler_that_is_away_for_a_while_is_waited_for(setting: Setting) -> None:
    cluster = setting.run(good, *[None] * 40, BOTH)
    assert setting.board.given_up == {}
    assert len(cluster.calls) == 5
    assert setting.out.getvalue().count("the scheduler does not answer") == 1


def test_answers_reach_the_board(setting: Setting) -> None:
    answers: Iterator[Answer] = iter([Failed("GPU lost"), Lost(), Refused("no predict.sh")])

    def act(method: str, case: str) -> Answer | None:
        return next(answers) if method == "measure" else good(method, case)

    cluster = setting.run(act, BOTH)
    assert [method for _, method, _ in cluster.calls] == ["measure"] * 3
    assert setting.board.refused == {"x": "no predict.sh"}
    said = setting.out.getvalue()
    assert "run x/a failed: GPU lost" in said
    assert "x refused: no predict.sh" in said


def test_an_answer_of_a_worker_that_was_lost_changes_nothing(setting: Setting) -> None:
    class Late(FakeCluster):
        """The answer of worker "old" comes with that of the next one."""

        def ended(self, timeout_s: float) -> Iterator[tuple[str, Answer | None]]:
            if any(worker != "old" for worker, _ in self.answers):
                yield from super().ended(timeout_s)

    cluster = setting.run(good, {"old": BOTH["1"]}, BOTH, kind=Late)
    assert setting.board.given_up == {}
    assert "run x/a again: its worker on m has ended" in setting.out.getvalue()
    assert [case for _, method, case in cluster.calls if method == "measure"] == ["a", "b", "a"]
