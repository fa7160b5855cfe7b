"""Preloaded by dask into workers: archives hold a submission's folder, which runs as a process.

    DASK_DISTRIBUTED__WORKER__PRELOAD=tests.evaluation.batch.processes

Everything else of a worker is the product's own.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from evaluation.batch import archives
from evaluation.batch.machine import Machine
from evaluation.batch.messages import Entrant
from evaluation.gpu.devices import Gpu
from evaluation.runners import InputError, Runner
from evaluation.runners.process import ProcessRunner
from evaluation.scratch import Check


@contextmanager
def runner(machine: Machine, team: Entrant, gpu: Gpu | None, check: Check) -> Iterator[Runner]:
    source = machine.folder / f"source-{os.getpid()}" / team.archive.name
    with tarfile.open(team.archive) as tar:
        tar.extractall(source, filter="data")
    if not (source / "predict.sh").exists():
        raise InputError(f"{team.archive}: no predict.sh")
    yield _Named(
        "sh predict.sh", source, team.conditions.limits, gpu.uuid if gpu else None, os.environ
    )


class _Named(ProcessRunner):
    def describe(self) -> dict[str, object]:
        # The folder is each worker's own; the archive is what a team's results belong to.
        return super().describe() | {"image": self.source.name, "source": None}


def dask_setup(_: object) -> None:
    archives.runner = runner
    archives.reap_containers = lambda: None
