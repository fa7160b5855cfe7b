"""A batch on machines that are not there: the product's own board on a clock that jumps.

Machines keep the rules of evaluation/batch/machine.py and archives.py: an image is loaded once a
machine, one at a time, what nobody uses is removed then, and no work of ours is beside a timed run.
"""

import asyncio
import contextlib
import selectors
from collections import Counter, deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from evaluation.batch.board import Board, Kind, Measure, Place, Release, Score, Task


@dataclass(frozen=True)
class Overheads:
    """The time that is not the submissions' own, in seconds."""

    round_trip_s: float  # on average, from the end of a worker's task to the begin of its next
    case_s: float  # of a case, around its container: staging, the baseline's second, collecting
    load_s: float  # of an image, with its inspection
    remove_s: float  # of an image
    score_s: float  # of a case


@dataclass(frozen=True)
class Size:
    """How large the batch is. hangs: the share of cases that run into the limit."""

    teams: int = 50
    cases: int = 1000
    machines: int = 8
    gpus: int = 8  # of a machine, and as many that score
    hangs: float = 0.0
    limit_s: float = 600.0


@dataclass(frozen=True)
class Result:
    """Shares are of the time of all GPUs until the last run ends."""

    hours: float  # until the last run ends
    at_a_case: float
    in_containers: float
    loads: int
    scoring_after_h: float


def simulate(size: Size, overheads: Overheads, seed: int = 0) -> Result:
    """Simulate the whole batch."""
    clock = _Clock()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now_s  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(_Batch(size, overheads, seed).all())
    finally:
        loop.close()


def runtimes_s(size: Size, seed: int) -> dict[str, dict[str, float]]:
    """Return each team's runtimes: the published systems' 10 to 60 s, cases 30 % apart (SD)."""
    rng = np.random.default_rng(seed)
    found = {}
    for i in range(size.teams):
        mean_s = np.exp(rng.uniform(np.log(10.0), np.log(60.0)))
        times_s = mean_s * rng.lognormal(0.0, 0.3, size.cases)
        times_s[rng.random(size.cases) < size.hangs] = size.limit_s
        found[f"team{i:02}"] = {f"case{j:04}": float(time_s) for j, time_s in enumerate(times_s)}
    return found


class _Clock(selectors.DefaultSelector):
    """Passes time at once when nothing is left to do at this moment."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for something that never comes"
        self.now_s += max(0.0, timeout)
        return super().select(0)


class _Gate:
    """Many of one kind at a time, never two kinds, in the order in which they come."""

    def __init__(self) -> None:
        self._inside: Counter[str] = Counter()
        self._queue: deque[tuple[str, asyncio.Future[None]]] = deque()

    @property
    def is_free(self) -> bool:
        """Whether none is inside and none waits."""
        return not (self._queue or self._inside.total())

    @contextlib.asynccontextmanager
    async def entered(self, kind: str) -> AsyncIterator[None]:
        entry: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((kind, entry))
        self._let_in()
        await entry
        try:
            yield
        finally:
            self._inside[kind] -= 1
            self._let_in()

    def _let_in(self) -> None:
        while self._queue:
            kind, entry = self._queue[0]
            if any(count for other, count in self._inside.items() if other != kind):
                return
            self._queue.popleft()
            self._inside[kind] += 1
            entry.set_result(None)


@dataclass
class _Machine:
    gate: _Gate = field(default_factory=_Gate)
    images: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: dict[str, set[str]] = field(default_factory=dict)  # of each image that is loaded


class _Batch:
    def __init__(self, size: Size, overheads: Overheads, seed: int) -> None:
        self.overheads = overheads
        self.runtimes_s = runtimes_s(size, seed)
        self.board = Board({team: list(cases) for team, cases in self.runtimes_s.items()}, {})
        self.machines = {f"machine{i}": _Machine() for i in range(size.machines)}
        self.places = {
            f"{machine}/{kind.value}{i}": Place(machine, kind)
            for machine in self.machines
            for kind in Kind
            for i in range(size.gpus)
        }
        self.gpus = size.machines * size.gpus
        self.at_case_s = self.in_container_s = self.last_run_s = 0.0
        self.loads = 0
        self._team: dict[str, str] = {}  # whose image a worker uses
        self._ended: asyncio.Queue[str] = asyncio.Queue()

    async def all(self) -> Result:
        now_s = asyncio.get_running_loop().time
        self.board.see(self.places)
        running: set[asyncio.Task[None]] = set()
        while not self.board.is_over:
            for worker, task in self.board.assign(now_s()):
                begun = asyncio.create_task(self._perform(worker, task))
                running.add(begun)
                begun.add_done_callback(running.discard)
            self.board.done(await self._ended.get())
        whole_s = self.gpus * self.last_run_s
        return Result(
            hours=self.last_run_s / 3600,
            at_a_case=self.at_case_s / whole_s,
            in_containers=self.in_container_s / whole_s,
            loads=self.loads,
            scoring_after_h=(now_s() - self.last_run_s) / 3600,
        )

    async def _perform(self, worker: str, task: Task) -> None:
        machine = self.machines[self.places[worker].machine]
        await asyncio.sleep(self.overheads.round_trip_s)
        match task:
            case Measure(team, case, _):
                await self._have_image(worker, machine, team)
                runtime_s = self.runtimes_s[team][case]
                async with machine.gate.entered("timed"):
                    await asyncio.sleep(self.overheads.case_s + runtime_s)
                self.at_case_s += self.overheads.case_s + runtime_s
                self.in_container_s += runtime_s
                self.last_run_s = asyncio.get_running_loop().time()
            case Score():
                async with machine.gate.entered("work"):
                    await asyncio.sleep(self.overheads.score_s)
            case Release():
                await self._leave(worker, machine)
        self._ended.put_nowait(worker)

    async def _have_image(self, worker: str, machine: _Machine, team: str) -> None:
        if self._team.get(worker) == team:
            return
        await self._leave(worker, machine)
        async with machine.images:
            if team not in machine.users:
                async with machine.gate.entered("work"):
                    await self._remove_unused(machine)
                    await asyncio.sleep(self.overheads.load_s)
                self.loads += 1
            machine.users.setdefault(team, set()).add(worker)
        self._team[worker] = team

    async def _leave(self, worker: str, machine: _Machine) -> None:
        team = self._team.pop(worker, None)
        if team is None:
            return
        async with machine.images:
            machine.users[team].discard(worker)
            if machine.gate.is_free:
                async with machine.gate.entered("work"):
                    await self._remove_unused(machine)

    async def _remove_unused(self, machine: _Machine) -> None:
        for team in [team for team, users in machine.users.items() if not users]:
            await asyncio.sleep(self.overheads.remove_s)
            del machine.users[team]
