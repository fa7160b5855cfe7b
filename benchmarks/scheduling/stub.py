"""Workers that only say that they have done it: `python -m benchmarks.scheduling.stub ADDRESS ...`.

As many as a cluster has, in one process, under the product's own client and dask. Runs are those
of the simulation, `pace` times as fast. At its end (SIGTERM) prints the seconds that workers for
submissions waited from one task to the next, as JSON.
"""

import asyncio
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import dask
from distributed import Worker
from msgspec import structs

from benchmarks.scheduling.simulation import Size, runtimes_s
from evaluation.batch.board import Kind, Place
from evaluation.batch.cluster import WORKER, worker_name
from evaluation.batch.machine import Machine
from evaluation.batch.messages import Answer, Done, Entrant
from evaluation.batch.slot import Slot
from evaluation.cases import Case
from evaluation.record import Record
from evaluation.runners import Limits
from evaluation.states import State

# As long as a real one: a client reads each of them.
RECORD = Record(
    case="case",
    state=State.OK,
    message="",
    size_xyz=(512, 512, 300),
    scans_sha256=("0" * 64,),
    reference_sha256="0" * 64,
    attempts=1,
    started="2024-11-22T10:00:00.000+00:00",
    usage=None,
    vram=None,
    accuracy=None,
    log=("what a submission prints in a line " * 2,) * 50,
    environment={"limits": structs.asdict(Limits()), "engine": "Engine 28.0.0"},
)


class Stub(Slot):
    """Takes a run's seconds for a run, and nothing for anything else."""

    def __init__(self, device: str, runtimes_s: dict[str, dict[str, float]], pace: float) -> None:
        super().__init__(Machine(Path()), device, None)
        self.runtimes_s, self.pace = runtimes_s, pace
        self.waited_s: list[float] = []
        self._ended_s: float | None = None

    def setup(self, worker: Worker) -> None:
        """Nothing is there to be cleaned up."""

    def measure(self, team: Entrant, case: Case, attempt: int) -> Answer:
        """See `Slot.measure`."""
        if self._ended_s is not None:
            self.waited_s.append(time.monotonic() - self._ended_s)
        time.sleep(self.runtimes_s[team.name][case.name] / self.pace)
        self._ended_s = time.monotonic()
        return Done(RECORD)

    def score(self, team: Entrant, case: Case) -> Answer:
        """See `Slot.score`."""
        return Done(RECORD)


async def serve(address: str, size: Size, pace: float, folder: str) -> list[Stub]:
    """Run all workers until SIGTERM; return what they were."""
    places = [
        (Place(f"machine{m}", kind), f"{kind.value}{m}-{i}")
        for m in range(size.machines)
        for kind in Kind
        for i in range(size.gpus)
    ]
    times_s = runtimes_s(size, seed=0)
    stubs = [Stub(device, times_s, pace) for _, device in places]
    workers = [
        Worker(
            address,
            nthreads=1,
            name=worker_name(place, device),
            plugins=(stub,),
            memory_limit=0,
            dashboard=False,
            local_directory=folder,
        )
        for (place, device), stub in zip(places, stubs, strict=True)
    ]
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    await asyncio.gather(*workers)
    await end.wait()
    await asyncio.gather(*(worker.close() for worker in workers))
    return stubs


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        address, pace, *counts = sys.argv[1:]
        dask.config.set(WORKER)
        served = asyncio.run(serve(address, Size(*map(int, counts)), float(pace), temporary))
    print(json.dumps([waited for stub in served for waited in stub.waited_s]))
