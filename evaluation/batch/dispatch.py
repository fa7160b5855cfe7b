"""Keeps every worker at work until nothing is left, or nothing more can be done."""

import time
from collections.abc import Sequence
from typing import TextIO

from evaluation.batch.board import Board, Measure, Obstacle, Release, Score, Task
from evaluation.batch.cluster import Cluster
from evaluation.batch.messages import Answer, Done, Entrant, Failed, Lost, Refused
from evaluation.batch.slot import Slot
from evaluation.cases import Case
from evaluation.record import Record
from volumes.text import one_line

LOOK_S = 1.0  # between two looks at which workers there are


class Dispatch:
    """One batch at work: the board decides, the cluster does, and `out` is told."""

    def __init__(
        self,
        teams: Sequence[Entrant],
        cases: Sequence[Case],
        board: Board,
        cluster: Cluster,
        patience_s: float,
        out: TextIO,
    ) -> None:
        self.board, self.cluster = board, cluster
        self._teams = {team.name: team for team in teams}
        self._cases = {case.name: case for case in cases}
        self._patience_s, self._out = patience_s, out
        self._done, self._total = 0, board.left
        self._looked_s = -float("inf")
        self._answers = True
        self._waiting_since_s: float | None = None

    def all(self) -> None:
        """Do all of it. Raises EvaluationError when the scheduler is gone for good."""
        try:
            while not self.board.is_over:
                now = time.monotonic()
                if now - self._looked_s >= LOOK_S:
                    self._looked_s = now
                    self._look()
                for worker, task in self.board.assign(now):
                    self._start(worker, task)
                self._wait_or_give_up(self.board.obstacle() if self._answers else None, now)
                for worker, answer in self.cluster.ended(LOOK_S):
                    self._ended(worker, answer)
        finally:
            self.cluster.stop()

    def _look(self) -> None:
        workers = self.cluster.workers()  # which says itself when it has waited long enough
        if workers is None and self._answers:
            self._say("the scheduler does not answer; what was under way is run again")
        self._answers = workers is not None
        if workers is None:
            self.board.forget()
        else:
            for place, task in self.board.see(workers):
                self._say(f"{task} again: its worker on {place.machine} has ended")

    def _start(self, worker: str, task: Task) -> None:
        match task:
            case Measure(team, case, attempt):
                arguments = self._teams[team], self._cases[case], attempt
                self.cluster.start(worker, Slot.measure, *arguments)
            case Score(team, case):
                self.cluster.start(worker, Slot.score, self._teams[team], self._cases[case])
            case Release():
                self.cluster.start(worker, Slot.release)

    def _ended(self, worker: str, answer: Answer | None) -> None:
        task = self.board.task(worker)
        match answer:
            case _ if task is None:
                pass  # the worker was lost, and its task has gone to another
            case Done(record, remark):
                self.board.done(worker)
                self._done += 1
                self._tell(task, record, remark)
            case None:
                self.board.done(worker)
            case Refused(why):
                self.board.refuse(worker, why)
                self._say(f"{task.team} refused: {why}")
            case Failed(why):
                self._say(f"{task} failed: {why}")
                if closed := self.board.failed(worker, why, time.monotonic()):
                    self._say(f"a worker gets nothing more: {closed}")
            case Lost():
                self.board.dropped(worker, time.monotonic())

    def _tell(self, task: Task, record: Record, remark: str) -> None:
        parts = [f"{task}  {record.state}"]
        if isinstance(task, Measure) and record.usage is not None:
            parts.append(f"{record.usage.runtime_s:.1f} s")
        if isinstance(task, Score) and record.accuracy is not None:
            parts.append(f"DSC {record.accuracy.dsc:.3f} NSD {record.accuracy.nsd:.3f}")
        self._say("  ".join([*parts, *(text for text in (record.message, remark) if text)]))

    def _wait_or_give_up(self, obstacle: Obstacle | None, now: float) -> None:
        if obstacle is None:
            self._waiting_since_s = None
            return
        if self._waiting_since_s is None:
            self._waiting_since_s = now
            if obstacle.may_pass:
                self._say(f"waiting up to {self._patience_s:g} s: {obstacle.text}")
        if not obstacle.may_pass or now - self._waiting_since_s > self._patience_s:
            self.board.abandon(obstacle.text)

    def _say(self, text: str) -> None:
        print(one_line(f"[{self._done:5}/{self._total}] {text}"), file=self._out, flush=True)
