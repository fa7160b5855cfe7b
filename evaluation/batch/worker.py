"""The workers of a machine: `python -m evaluation.batch.worker ADDRESS` on each of a cluster.

One process for each GPU, one for each core that scores; a process that ends is started again, so
that it waits for a scheduler that is not there yet, and finds one that was restarted.
"""

import argparse
import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Self

import dask
from distributed import Security, Worker
from distributed.comm.addressing import get_address_host
from distributed.utils import get_ip

from evaluation import scratch
from evaluation.batch import archives, cluster, machine, options, trust
from evaluation.batch.board import Kind, Place
from evaluation.batch.slot import Slot
from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.gpu.devices import Gpu
from evaluation.parent import end_with
from volumes import VERSION
from volumes.command import exit_code, say

LOOK_S = 0.2
RESTART_S = 2.0  # between two starts of the same worker
GRACE_S = 20.0  # for a worker to remove its container
KILL_S = 2.0
CONNECT_S = 30.0
ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@dataclass(frozen=True)
class Spec:
    """One worker: its device is a GPU's UUID, or the name of a place without one."""

    kind: Kind
    device: str
    gpu: Gpu | None = None


def specs(gpus: Sequence[str], slots: int | None, scorers: int | None) -> tuple[list[Spec], str]:
    """Return the workers that options ask for, and what there is to say of GPUs left out.

    gpus: UUIDs, or "none"; empty: every GPU of this machine. slots: how many submissions run at a
    time without a GPU, which is also what happens where there is none (then 1). scorers: how many
    cases are scored at a time; None: one a core. Raises EvaluationError.
    """
    said = ""
    if slots is not None or list(gpus) == [devices.NONE]:
        found: list[Gpu] = []
    elif gpus:
        found = [gpu for choice in gpus if (gpu := devices.find(choice))]
    else:
        found, said = devices.every()
    runs = [Spec(Kind.GPU, gpu.uuid, gpu) for gpu in found]
    runs = runs or [Spec(Kind.GPU, f"slot-{i}") for i in range(slots or 1)]
    cores = len(os.sched_getaffinity(0)) if scorers is None else scorers
    return [*runs, *(Spec(Kind.CPU, f"core-{i}") for i in range(cores))], said


class Workers:
    """Keeps workers running, from `with` on until its end."""

    def __init__(self, address: str, security: Security, wanted: Sequence[Spec]) -> None:
        self._address, self._security, self._wanted = address, security, wanted
        self._processes: dict[Spec, BaseProcess] = {}
        self._started_s: dict[Spec, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        deadline_s = time.monotonic() + GRACE_S
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join(max(0.0, deadline_s - time.monotonic()))
            process.kill()
            process.join(KILL_S)  # one that hangs within a driver may not even be killed
        with contextlib.suppress(EvaluationError):  # what those left that did not end in time
            archives.reap_containers()
            archives.tidy(machine.here())

    def _keep(self) -> None:
        context = multiprocessing.get_context("spawn")
        while not self._stopping.wait(LOOK_S):
            for spec in self._wanted:
                process = self._processes.get(spec)
                now = time.monotonic()
                rested = now - self._started_s.get(spec, -RESTART_S) >= RESTART_S
                if (process is None or not process.is_alive()) and rested:
                    arguments = (self._address, self._security, spec, os.getpid())
                    process = context.Process(target=_run, args=arguments)
                    process.start()
                    self._processes[spec], self._started_s[spec] = process, now


def _run(address: str, security: Security, spec: Spec, parent: int) -> None:
    """Be one worker, until the scheduler is gone or SIGTERM comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent
    end_with(parent)
    dask.config.set(cluster.WORKER)
    slot = Slot(machine.here(), spec.device, spec.gpu)
    with contextlib.suppress(OSError, TimeoutError):  # no scheduler there: the parent starts anew
        asyncio.run(_serve(address, security, spec, slot))
    slot.stop()


class _WorkerWithoutPages(cluster.WithoutPages, Worker):
    """What a batch is done by."""


async def _serve(address: str, security: Security, spec: Spec, slot: Slot) -> None:
    with scratch.folder(scratch.private()) as folder:
        worker = _WorkerWithoutPages(
            address,
            security=security,
            # Where the scheduler is reached from, and nowhere else.
            host=get_ip(get_address_host(address)),
            nthreads=1,
            name=cluster.worker_name(Place(socket.gethostname(), spec.kind), spec.device),
            plugins=(slot,),
            memory_limit=0,
            silence_logs=logging.ERROR,
            death_timeout=CONNECT_S,
            local_directory=str(folder),
        )
        terminated = asyncio.Event()

        def terminate() -> None:
            slot.end()  # at once: what runs must not be taken to have ended by itself
            terminated.set()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        async with worker:
            ends = (worker.finished(), terminated.wait())
            await asyncio.wait(
                [asyncio.ensure_future(end) for end in ends], return_when=asyncio.FIRST_COMPLETED
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run this machine's workers until told to stop (SIGTERM, Ctrl-C)."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.batch.worker", description=main.__doc__
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    parser.add_argument("scheduler", metavar="ADDRESS", help="tls://HOST:PORT")
    options.add_trust(parser)
    options.add_workers(parser)
    given = parser.parse_args(arguments)
    for number in ENDS:
        signal.signal(number, _interrupt)

    def do() -> None:
        security = trust.chosen(given.scheduler, given)
        wanted, said = specs(given.gpu, given.slots, given.scorers)
        say(f"workers  {', '.join(spec.device for spec in wanted)}")
        if said:
            say(f"notice   left out: {said}")
        with contextlib.suppress(KeyboardInterrupt), Workers(given.scheduler, security, wanted):
            signal.pause()

    return exit_code(do)


def _interrupt(number: int, frame: object) -> None:
    for end in ENDS:  # a batch system may say it twice: what is being cleaned up goes on
        signal.signal(end, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
