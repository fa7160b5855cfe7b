"""What dask and the client cost: the product's own, against workers that do nothing (stub.py)."""

import json
import resource
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from distributed import Security

from benchmarks.scheduling.simulation import Size, runtimes_s
from evaluation import challenges
from evaluation.batch.board import Board
from evaluation.batch.cluster import Cluster
from evaluation.batch.dispatch import Dispatch
from evaluation.batch.messages import Entrant
from evaluation.cases import Case
from evaluation.conditions import usual
from evaluation.teams import HandedIn
from volumes.grid import Grid

PATIENCE_S = 120.0


@dataclass(frozen=True)
class RoundTrip:
    """Seconds from the end of a worker's task to the begin of its next; tasks in all."""

    mean_s: float
    median_s: float
    p99_s: float
    tasks: int
    client_peak_mib: float  # of this process, imports included


def measure(size: Size, pace: float) -> RoundTrip:
    """Dispatch a batch whose runs are `pace` times as fast as the simulation's.

    The scheduler is another process.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = _start(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"
    )
    counts = size.teams, size.cases, size.machines, size.gpus
    stub = _start("benchmarks.scheduling.stub", address, pace, *counts)
    conditions = usual(challenges.load("flare24"))
    times_s = runtimes_s(size, seed=0)
    teams = [
        Entrant(
            name,
            Path(f"/{name}.tar.gz"),
            Path(f"/results/{name}"),
            conditions,
            image_mib=40960,
            handed_in=HandedIn("", 0, 0),
        )
        for name in times_s
    ]
    grid = Grid.of_affine((300, 512, 512), np.eye(4))
    cases = [Case(name, (Path(f"/scans/{name}"),), grid) for name in times_s[teams[0].name]]
    board = Board({name: list(times) for name, times in times_s.items()}, {})
    tasks = board.left
    try:
        with (
            Cluster(address, PATIENCE_S, Security()) as cluster,
            Path("/dev/null").open("w") as nowhere,
        ):
            Dispatch(teams, cases, board, cluster, PATIENCE_S, nowhere).all()
        stub.terminate()
        waited_s = json.loads(stub.communicate()[0].splitlines()[-1])
    finally:
        for process in (stub, scheduler):
            process.kill()
            process.wait()
    assert not board.given_up, board.given_up
    median_s, p99_s = np.percentile(waited_s, [50, 99])
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return RoundTrip(
        float(np.mean(waited_s)), float(median_s), float(p99_s), tasks, peak_kib / 1024
    )


def _start(module: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "stub" in module else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
