"""All that knows dask: which workers there are, handing them tasks, and hearing how those ended.

Every task is for one worker by its address, and a worker has one at a time: dask decides nothing.
Nothing is kept in its memory either, so that a scheduler may be restarted at any time.
"""

import asyncio
import contextlib
import logging
import os
import queue
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Self

import dask
from distributed import Client, Future, Scheduler, Security, SpecCluster, Worker, get_worker

from evaluation import scratch
from evaluation.batch.board import Kind, Place
from evaluation.batch.messages import Answer, Failed, Lost
from evaluation.batch.slot import Slot
from evaluation.errors import EvaluationError

ANSWER_S = 30.0  # for a worker to hand over what it says it has
STOP_S = 60.0  # for a worker to remove its container
SCHEDULER = {
    "distributed.scheduler.worker-ttl": "60 s",  # a machine without power says nothing any more
    "distributed.diagnostics.nvml": False,
    "distributed.admin.low-level-log-length": 10,
}
WORKER = {
    "distributed.admin.low-level-log-length": 10,  # of messages with all that is in them
    "distributed.diagnostics.nvml": False,  # GPUs are the harness's: dask would poll each one, too
    "distributed.worker.profile.enabled": False,  # nothing else runs beside a timed run
    "distributed.worker.memory.target": False,  # nothing is kept that could be spilled
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
}


class Cluster:
    """The workers of one scheduler, by their addresses; a context manager."""

    def __init__(self, address: str, patience_s: float, security: Security) -> None:
        """Connect; a scheduler that does not answer, now or later, is waited for so long.

        Raises EvaluationError when there is none.
        """
        self.address = address
        self._ended: queue.SimpleQueue[tuple[str, Future[Any]]] = queue.SimpleQueue()
        # Kept, because dask drops the task of a future without a reference.
        self._running: dict[str, Future[Any]] = {}
        try:
            self._client = Client(
                address, timeout=patience_s, set_as_default=False, security=security
            )
        except (OSError, ValueError) as error:
            raise EvaluationError(
                f"{address}: no scheduler answers ({error}); start one with `python -m"
                " evaluation.batch.scheduler`"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close(timeout=ANSWER_S)

    def workers(self) -> dict[str, Place] | None:
        """Return the workers that are there; None while the scheduler does not answer.

        Raises EvaluationError when it has not for too long.
        """
        if self._client.status == "closed":
            raise EvaluationError(
                f"{self.address}: the scheduler does not answer any more; start it, and then this"
                " command again: what was measured is kept"
            )
        found = None
        if self._client.status == "running":
            with contextlib.suppress(OSError):  # the connection has just ended
                found = self._client.scheduler_info()["workers"]
        for worker in self._running.keys() - (found or {}).keys():
            del self._running[worker]
        return None if found is None else _places(found)

    def start(self, worker: str, method: Callable[..., Answer | None], *arguments: Any) -> None:
        """Hand a worker its task: a method of its Slot, and the arguments."""
        future = self._client.submit(
            _on_slot, method.__name__, arguments, workers=[worker], pure=False
        )
        self._running[worker] = future
        future.add_done_callback(lambda ended: self._ended.put((worker, ended)))

    def ended(self, timeout_s: float) -> Iterator[tuple[str, Answer | None]]:
        """Yield the workers whose tasks have ended, and the answers; wait so long for the first."""
        with contextlib.suppress(queue.Empty):
            while True:
                worker, future = self._ended.get(timeout=timeout_s)
                timeout_s = 0.0
                if self._running.get(worker) is future:
                    del self._running[worker]
                    yield worker, _answer(future)

    def stop(self) -> None:
        """Let all workers end what they run, and give back what they hold."""
        with contextlib.suppress(OSError, TimeoutError):
            self._client.run(_stop_slot, on_error="ignore")


class WithoutPages:
    """Goes before dask's Scheduler or Worker: no web pages, whose port has no TLS."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """Start none."""


class SchedulerWithoutPages(WithoutPages, Scheduler):
    """What a batch is scheduled by."""


@contextlib.contextmanager
def embedded(security: Security) -> Iterator[str]:
    """Run a scheduler within this process, for this machine alone; yield its address."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    options = {"host": "127.0.0.1", "port": 0, "protocol": "tls://", "security": security}
    with (
        dask.config.set(scheduler_settings()),
        SpecCluster(
            {}, {"cls": SchedulerWithoutPages, "options": options}, security=security
        ) as cluster,
    ):
        yield str(cluster.scheduler_address)


def scheduler_settings() -> dict[str, Any]:
    """Return dask's settings for a scheduler; raises EvaluationError.

    It imports from its temporary folder, and would take one in /tmp that anybody has made.
    """
    return SCHEDULER | {"temporary-directory": str(scratch.private())}


def worker_name(place: Place, device: str) -> str:
    """Return a name for the running process's worker, which says where it is."""
    return "/".join((place.machine, place.kind.value, device, str(os.getpid())))


def _places(workers: dict[str, dict[str, Any]]) -> dict[str, Place]:
    """Return where the workers are that worker.py started; others are none of ours."""
    found = {}
    for address, worker in workers.items():
        with contextlib.suppress(ValueError):
            machine, kind, _, _ = str(worker["name"]).split("/")
            found[address] = Place(machine, Kind(kind))
    return found


def _on_slot(method: str, arguments: tuple[Any, ...]) -> Answer | None:
    answer: Answer | None = getattr(get_worker().plugins[Slot.name], method)(*arguments)
    return answer


async def _stop_slot(dask_worker: Worker) -> None:
    slot = dask_worker.plugins.get(Slot.name)
    if isinstance(slot, Slot):
        with contextlib.suppress(TimeoutError):  # an engine that does not answer
            await asyncio.wait_for(asyncio.to_thread(slot.stop), STOP_S)


def _answer(future: Future[Any]) -> Answer | None:
    if future.status == "error":  # no answer that a Slot gives: a fault of this program
        return Failed(f"unexpected: {future.exception(timeout=ANSWER_S)!r}")
    try:
        answer: Answer | None = future.result(timeout=ANSWER_S)
    except (OSError, TimeoutError, CancelledError):
        return Lost()
    return answer
