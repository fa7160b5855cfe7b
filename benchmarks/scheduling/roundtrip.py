"""What dask and the client cost: the product's own, against workers that do nothing (stub.py)."""

import json
import resource
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.scheduling.simulation import Size
from evaluation.batch.board import Board
from evaluation.batch.cluster import Cluster
from evaluation.batch.dispatch import Dispatch
from evaluation.batch.job import Conditions, Team
from evaluation.cases import Case
from evaluation.runners import LIMITS
from evaluation.volumes import Header

PATIENCE_S = 120.0


@dataclass(frozen=True)
class RoundTrip:
    """Seconds from the end of a worker's task to the begin of its next; tasks in all."""

    median_s: float
    p99_s: float
    tasks: int
    client_peak_mib: float  # of this process, imports included


def measure(size: Size, seconds: float) -> RoundTrip:
    """Dispatch a batch whose runs take so many seconds each; the scheduler is another process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = _start(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"
    )
    stub = _start("benchmarks.scheduling.stub", address, size.machines, size.gpus, seconds)
    conditions = Conditions(LIMITS["sandbox"], 3600.0, 0.02, "flare24", 40960)
    teams = [
        Team(f"team{i:02}", Path(f"/team{i:02}.tar.gz"), Path(f"/results/team{i:02}"), conditions)
        for i in range(size.teams)
    ]
    affine = np.eye(4)
    header = Header(Path(), (300, 512, 512), (1.0, 1.0, 1.0), (affine,), affine, np.dtype("i2"))
    cases = [Case(f"case{i:04}", (Path(f"/scans/case{i:04}"),), header) for i in range(size.cases)]
    board = Board({team.name: [case.name for case in cases] for team in teams}, {})
    tasks = board.left
    try:
        with Cluster(address, PATIENCE_S) as cluster, Path("/dev/null").open("w") as nowhere:
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
    return RoundTrip(float(median_s), float(p99_s), tasks, peak_kib / 1024)


def _start(module: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "stub" in module else subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
