"""What one worker does: it has one GPU or none, and is at one case at a time."""

import contextlib
import threading
from dataclasses import dataclass
from typing import Any

from distributed import Worker, WorkerPlugin

from evaluation import harness, host, settings
from evaluation.apart import Apart, CallFailed
from evaluation.batch import archives
from evaluation.batch.machine import Machine
from evaluation.batch.messages import Answer, Done, Entrant, Failed, Lost, Refused
from evaluation.batch.resubmission import keep_verdict
from evaluation.cases import Case
from evaluation.disk import check_disk
from evaluation.errors import EvaluationError
from evaluation.gpu.devices import Gpu
from evaluation.record import Record
from evaluation.runners import InputError
from evaluation.scratch import lock
from evaluation.states import State
from evaluation.store import Store
from evaluation.trial import MeasuredRunner


class Stopped(EvaluationError):
    """The worker is to end, or to give up what it is at."""


class _NotAccepted(Exception):
    """The team's archive cannot be run, here or elsewhere."""


@dataclass(frozen=True)
class _Ready:
    """A team's image, ready on the worker's GPU, until `held` is closed."""

    team: Entrant
    runner: MeasuredRunner
    environment: dict[str, Any]  # what records say of machine, engine and submission
    held: contextlib.ExitStack


class Slot(WorkerPlugin):
    """A worker's state between its cases.

    machine: the one it is on. device: what it has alone while a submission runs, a GPU's UUID or
    another name. gpu: None where there is none; then its memory is not measured.
    """

    name = "slot"

    def __init__(self, machine: Machine, device: str, gpu: Gpu | None) -> None:
        self.machine, self.device, self.gpu = machine, device, gpu
        self._stopping = threading.Event()
        self._busy = threading.Lock()
        self._apart = Apart()  # scores and draws
        self._ready: _Ready | None = None

    def setup(self, worker: Worker) -> None:
        """See `WorkerPlugin`: a worker that was killed may have left its container running."""
        with contextlib.suppress(EvaluationError):  # without an engine: the first case will say so
            archives.reap_containers()

    def teardown(self, worker: Worker) -> None:
        """See `WorkerPlugin`: what runs must end before the worker does."""
        self.end()

    def end(self) -> None:
        """End the submission that is running, and every one that is begun from now on."""
        self._stopping.set()

    def stop(self) -> None:
        """End the submission that is running, if there is one, and give back what is held."""
        self.end()
        self.release()
        self._apart.close()
        self._stopping.clear()

    def release(self) -> None:
        """Give back what is held for a team: its image, and the GPU."""
        with self._busy:
            self._leave()

    def measure(self, team: Entrant, case: Case, attempt: int) -> Answer:
        """Run a case and keep what it came to, unless another worker has done that."""
        with self._busy:
            try:
                one = self._measured(Store(team.folder), team, case, attempt)
            except _NotAccepted as error:
                return Refused(str(error))
            except Stopped:
                self._leave()
                return Lost()
            except (EvaluationError, OSError) as error:
                self._leave()
                return Failed(str(error))
            if one.state is State.INFRA_ERROR:
                self._leave()  # the next attempt begins with a new connection to the engine
                return Failed(one.message)
        return Done(one)

    def score(self, team: Entrant, case: Case) -> Answer:
        """Hold what a case came to against its reference, and draw it."""
        from evaluation.pictures import drawing  # which brings matplotlib, to this worker alone

        store, challenge = Store(team.folder), team.conditions.challenge
        try:
            with self._busy, self._machine(team).undisturbing(self._check):
                check_disk(store.folder)
                one = harness.kept(store, case)
                if one is None:
                    return Failed(f"{store.path(case.name)}: is not there any more")
                if not one.is_scored:
                    rules = challenge.scoring
                    one = harness.score(one, case, store, rules, self._apart, self._check)
                try:
                    job = (store, case, one, challenge)
                    remark = self._apart.call(drawing.draw_one, *job, check=self._check)
                except CallFailed as failure:
                    remark = drawing.not_drawn(case.name, failure)
                return Done(one, remark or "")
        except Stopped:
            return Lost()
        except (EvaluationError, OSError) as error:
            return Failed(str(error))

    def _measured(self, store: Store, team: Entrant, case: Case, attempt: int) -> Record:
        # A worker that the scheduler has lost may be at the same case still.
        with lock(store.work / f"{case.name}.lock", self._check):
            known = store.load(case.name)
            if known is not None and known.state is not State.INFRA_ERROR:
                return known
            check_disk(store.folder)
            ready = self._made_ready(store, team)
            with self._machine(team).timed(self._check):
                attempts = range(attempt, attempt + 1)
                return harness.measure(ready.runner, case, store, ready.environment, attempts)

    def _made_ready(self, store: Store, team: Entrant) -> _Ready:
        if self._ready is None or self._ready.team != team:
            self._leave()
            with contextlib.ExitStack() as held:
                self._ready = self._open(store, team, held)
        return self._ready

    def _open(self, store: Store, team: Entrant, held: contextlib.ExitStack) -> _Ready:
        """Make a team's image ready; what that needs is entered into `held`."""
        folder = held.enter_context(self.machine.device(self.device, self._check))
        try:
            runner = held.enter_context(
                archives.runner(self._machine(team), team, self.gpu, self._check)
            )
        except InputError as error:
            keep_verdict(team, None, str(error))
            raise _NotAccepted(error) from error
        described = runner.describe()
        gpu = "each worker's own" if self.gpu else None
        made_with = settings.settings_of(described, team.conditions, gpu)
        try:
            settings.check(store, made_with, resume=True)
        except EvaluationError as error:
            raise _NotAccepted(error) from error
        settings.save(store, made_with)
        keep_verdict(team, str(described["image"]), "")
        measured = MeasuredRunner(runner, team.conditions, folder, self.gpu, self._check)
        held.enter_context(measured)
        submitted = {"archive_sha256": team.handed_in.sha256}
        gpu_facts = {"gpu": self.gpu and vars(self.gpu)}
        environment = described | submitted | gpu_facts | host.facts()
        return _Ready(team, measured, environment, held.pop_all())

    def _leave(self) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            with contextlib.suppress(EvaluationError):  # an engine that is gone has nothing of ours
                ready.held.close()

    def _machine(self, team: Entrant) -> Machine:
        return self.machine.when(overlap=team.overlap)

    def _check(self) -> None:
        if self._stopping.is_set():
            raise Stopped("stopped")
