"""Decides what runs where next. It starts nothing and waits for nothing: tests and the simulation
(benchmarks/scheduling/) move its clock themselves.

A machine stays with a team while the team has cases, so that images are loaded seldom. Scoring
waits until its machine has nothing to time. A case that failed through no fault of its submission
is tried again, on another machine where there is one.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from evaluation.harness import ATTEMPTS, FAILURES, PAUSE_S

LOSSES = 5  # workers that end in the midst of the same case, and it is given up


class Kind(Enum):
    """What a worker is for."""

    GPU = "gpu"
    CPU = "cpu"


@dataclass(frozen=True)
class Place:
    """Where a worker is, and what it is for."""

    machine: str
    kind: Kind


@dataclass(frozen=True)
class Measure:
    """Run a case; attempt: from 1."""

    team: str
    case: str
    attempt: int

    def __str__(self) -> str:
        return f"run {self.team}/{self.case}"


@dataclass(frozen=True)
class Score:
    """Hold a measured case against its reference."""

    team: str
    case: str

    def __str__(self) -> str:
        return f"score {self.team}/{self.case}"


@dataclass(frozen=True)
class Release:
    """Give back a team's image: it has no more cases for this worker."""

    team: str


Task = Measure | Score | Release


@dataclass(frozen=True)
class Obstacle:
    """Why nothing can be done; may_pass: by itself, when a worker starts."""

    text: str
    may_pass: bool


@dataclass
class _Worker:
    place: Place
    task: Task | None = None
    team: str | None = None  # whose image it holds
    strikes: int = 0  # failures in a row
    avoids: set[str] = field(default_factory=set)  # teams whose fault it may be that it failed
    rests_until: float = 0.0
    closed: str = ""  # why it gets nothing more


@dataclass
class _Team:
    """What is left of one team; again: cases that were begun before, and did not come to an end."""

    fresh: deque[str]
    unscored: deque[str]
    again: list[str] = field(default_factory=list)

    @property
    def left(self) -> int:
        return len(self.fresh) + len(self.again)


class Board:
    """All that is left of a batch, and who is at what.

    measure, score: the cases of each team that are to be run first, and that only lack their score.
    overlap: scoring does not wait for timed runs of its machine.

    refused: teams that cannot be run, and why. given_up: cases that failed again and again.
    """

    def __init__(
        self,
        measure: Mapping[str, Sequence[str]],
        score: Mapping[str, Sequence[str]],
        *,
        overlap: bool = False,
    ) -> None:
        self.refused: dict[str, str] = {}
        self.given_up: dict[tuple[str, str], str] = {}
        self._teams = {
            name: _Team(deque(cases), deque(score.get(name, ()))) for name, cases in measure.items()
        }
        self._workers: dict[str, _Worker] = {}
        self._failures: dict[tuple[str, str], list[tuple[str, str]]] = {}  # machine and reason
        self._losses: Counter[tuple[str, str]] = Counter()
        self._overlap = overlap

    @property
    def is_busy(self) -> bool:
        """Whether a worker is at work."""
        return any(worker.task for worker in self._workers.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing is left, nobody is at work, and every image was given back."""
        held = any(worker.team for worker in self._workers.values())
        left = any(team.left or team.unscored for team in self._teams.values())
        return not (held or left or self.is_busy)

    def has(self, name: str) -> bool:
        """Whether there is anything left to do for a team, or somebody at it."""
        team = self._teams[name]
        busy = any(worker.task and worker.task.team == name for worker in self._workers.values())
        return bool(team.left or team.unscored or busy)

    def task(self, worker: str) -> Task | None:
        """Return what a worker is at; None also for one that is not there."""
        return self._workers[worker].task if worker in self._workers else None

    @property
    def left(self) -> int:
        """How many tasks there are still to begin: runs, and scores of what is run or was."""
        return sum(2 * team.left + len(team.unscored) for team in self._teams.values())

    def see(self, places: Mapping[str, Place]) -> list[tuple[Place, Task]]:
        """Take note of the workers that there are now; return what others were at and where.

        That is to be done again.
        """
        lost: list[tuple[Place, Task]] = []
        for name in [name for name in self._workers if name not in places]:
            worker = self._workers.pop(name)
            if isinstance(worker.task, Measure | Score):
                self._lost(worker.task, worker.place.machine)
                lost.append((worker.place, worker.task))
        for name, place in places.items():
            self._workers.setdefault(name, _Worker(place))
        return lost

    def forget(self) -> None:
        """The scheduler is gone: nobody's fault, but no worker will answer any more."""
        for worker in self._workers.values():
            if worker.task:
                self._put_back(worker.task)
        self._workers.clear()

    def assign(self, now: float) -> Iterator[tuple[str, Task]]:
        """Yield who is to begin what; now: seconds of any clock."""
        free = [
            (name, worker)
            for name, worker in self._workers.items()
            if not (worker.task or worker.closed or worker.rests_until > now)
        ]
        for name, worker in free:
            if worker.place.kind is Kind.GPU and (task := self._next_run(worker)):
                worker.task = task
                worker.team = task.team
                yield name, task
        timed = set() if self._overlap else self._timed_machines(now)
        for name, worker in free:
            if worker.place.kind is Kind.CPU and worker.place.machine not in timed:
                worker.task = self._next_score()
                if worker.task is None:
                    return
                yield name, worker.task

    def done(self, name: str) -> None:
        """A worker has done what it was at."""
        worker = self._workers[name]
        task, worker.task, worker.strikes = worker.task, None, 0
        if isinstance(task, Release):
            worker.team = None
        elif isinstance(task, Measure):
            self._teams[task.team].unscored.append(task.case)
            self._failures.pop((task.team, task.case), None)

    def refuse(self, name: str, why: str) -> None:
        """A worker has found that the team it was at cannot be run."""
        worker = self._workers[name]
        assert worker.task is not None
        team, worker.task, worker.team = worker.task.team, None, None
        self.refused[team] = why
        self._teams[team].fresh.clear()
        self._teams[team].again.clear()

    def failed(self, name: str, why: str, now: float) -> str:
        """A worker's machine has failed it, and it has given back the team's image.

        It pauses, and after FAILURES in a row it gets nothing more: why, is returned then. The last
        of these is another team's case, where there is one: it tells whose fault it is.
        """
        worker = self._workers[name]
        task, worker.task, worker.team = worker.task, None, None
        assert isinstance(task, Measure | Score)
        worker.strikes += 1
        worker.rests_until = now + PAUSE_S
        if worker.strikes == FAILURES - 1:
            worker.avoids.add(task.team)
        if worker.strikes == FAILURES:
            worker.closed = f"{worker.place.machine}: {FAILURES} failures in a row, the last: {why}"
        failures = self._failures.setdefault((task.team, task.case), [])
        failures.append((worker.place.machine, why))
        if len(failures) < ATTEMPTS:
            self._put_back(task)
        else:
            reasons = dict.fromkeys(reason for _, reason in failures)
            self._give_up(task, "; then: ".join(reasons))
        return worker.closed

    def dropped(self, name: str, now: float) -> None:
        """A worker has given up what it was at, or nobody knows: it is about to end, perhaps."""
        worker = self._workers[name]
        task, worker.task, worker.team = worker.task, None, None
        worker.rests_until = now + PAUSE_S
        if task is not None:
            self._put_back(task)

    def obstacle(self) -> Obstacle | None:
        """Say what keeps the rest from being done; None while somebody is at work or could be."""
        if self.is_busy or self.is_over:
            return None
        runs = any(team.left for team in self._teams.values())
        kind, what = (Kind.GPU, "runs submissions") if runs else (Kind.CPU, "scores")
        workers = [worker for worker in self._workers.values() if worker.place.kind is kind]
        if not workers:
            return Obstacle(f"there is no worker that {what}", may_pass=True)
        if all(worker.closed for worker in workers):
            return Obstacle("; ".join(sorted({one.closed for one in workers})), may_pass=False)
        return None

    def abandon(self, why: str) -> None:
        """Give up whatever is left."""
        for name, team in self._teams.items():
            for case in (*team.fresh, *team.again, *team.unscored):
                self.given_up[name, case] = why
            team.fresh.clear()
            team.again.clear()
            team.unscored.clear()

    def _next_run(self, worker: _Worker) -> Measure | Release | None:
        """The team whose image is here; else the one with most to do for each machine at it."""
        machine = worker.place.machine
        machines: dict[str, set[str]] = {
            name: set() for name, team in self._teams.items() if team.left
        }
        for other in self._workers.values():
            if other.team in machines:
                machines[other.team].add(other.place.machine)

        def worth(name: str) -> tuple[bool, bool, bool, float]:
            left, at_it = self._teams[name].left, machines[name]
            share = left / (1 + len(at_it - {machine}))
            return name not in worker.avoids, name == worker.team, machine in at_it, share

        for name in sorted(machines, key=worth, reverse=True):
            team = self._teams[name]
            case = team.fresh.popleft() if team.fresh else None
            if case is None:
                case = next((one for one in team.again if self._may_try(name, one, machine)), None)
                if case is not None:
                    team.again.remove(case)
            if case is not None:
                return Measure(name, case, 1 + len(self._failures.get((name, case), ())))
        return Release(worker.team) if worker.team is not None else None

    def _may_try(self, team: str, case: str, machine: str) -> bool:
        """Whether a case did not fail on this machine yet, or has done so on all there are."""
        failed_on = {where for where, _ in self._failures.get((team, case), ())}
        usable = {
            other.place.machine
            for other in self._workers.values()
            if other.place.kind is Kind.GPU and not other.closed
        }
        return machine not in failed_on or usable <= failed_on

    def _timed_machines(self, now: float) -> set[str]:
        """Machines on which a submission runs, or is about to."""
        return {
            worker.place.machine
            for worker in self._workers.values()
            if worker.place.kind is Kind.GPU
            and (worker.task or (worker.rests_until > now and not worker.closed))
        }

    def _next_score(self) -> Score | None:
        for name, team in self._teams.items():
            if team.unscored:
                return Score(name, team.unscored.popleft())
        return None

    def _lost(self, task: Measure | Score, machine: str) -> None:
        self._losses[task.team, task.case] += 1
        if self._losses[task.team, task.case] < LOSSES:
            self._put_back(task)
        else:
            why = f"{LOSSES} workers ended while they were at it, the last on {machine}"
            self._give_up(task, why)

    def _put_back(self, task: Task) -> None:
        if isinstance(task, Score):
            self._teams[task.team].unscored.append(task.case)
        elif isinstance(task, Measure) and task.team not in self.refused:
            self._teams[task.team].again.append(task.case)

    def _give_up(self, task: Measure | Score, why: str) -> None:
        self.given_up[task.team, task.case] = why
