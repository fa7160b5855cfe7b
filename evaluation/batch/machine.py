"""Keeps all workers of one machine out of each other's way, whoever started them.

All of it is locks on files, which the kernel gives back when a worker is killed. Timed runs may be
beside each other, one a GPU, and so may other work (scoring, loading an image), but never one kind
beside the other.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from evaluation import scratch
from evaluation.scratch import Check, is_free, lock


@dataclass(frozen=True)
class Machine:
    """The folder that all workers of a machine share; it must be on a disk of this machine.

    overlap: whether other work may go on beside timed runs after all.
    """

    folder: Path
    overlap: bool = False

    def when(self, *, overlap: bool) -> Self:
        """Return this machine with or without overlap."""
        return replace(self, overlap=overlap)

    @contextlib.contextmanager
    def timed(self, check: Check) -> Iterator[None]:
        """Be one of the timed runs: no other work begins, and what is under way is waited for."""
        with self._kind("timed", "work", check):
            yield

    @property
    def is_timing(self) -> bool:
        """Whether a timed run is under way."""
        return not is_free(self.folder / "timed.lock")

    @contextlib.contextmanager
    def undisturbing(self, check: Check) -> Iterator[None]:
        """Do other work: no timed run begins, and those under way are waited for."""
        with self._kind("work", "timed", check):
            yield

    @contextlib.contextmanager
    def device(self, name: str, check: Check) -> Iterator[Path]:
        """Have a GPU to oneself; yields an empty folder for what exists during a run only."""
        with lock(self.folder / f"{name}.lock", check), scratch.folder(self.folder) as folder:
            yield folder

    @contextlib.contextmanager
    def _kind(self, ours: str, theirs: str, check: Check) -> Iterator[None]:
        if self.overlap:
            yield
            return
        with contextlib.ExitStack() as held:
            # A waiting worker holds the gate: later ones, of either kind, cannot pass it.
            with lock(self.folder / "gate.lock", check):
                with lock(self.folder / f"{theirs}.lock", check):
                    pass  # none of theirs is left
                held.enter_context(lock(self.folder / f"{ours}.lock", check, shared=True))
            yield


def here() -> Machine:
    """Return this machine, as this user's workers share it; raises EvaluationError."""
    return Machine(scratch.private())
