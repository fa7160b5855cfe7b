"""Keeps all workers of one machine out of each other's way, whoever started them.

All of it is locks on files, which the kernel gives back when a worker is killed. Timed runs may be
beside each other, one a GPU, and so may other work (scoring, loading an image), but never one kind
beside the other.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TextIO

from evaluation.errors import EvaluationError
from evaluation.trial import remove

POLL_S = 0.05

Check = Callable[[], None]  # called while a lock is waited for; raises to give up


@contextlib.contextmanager
def lock(path: Path, check: Check = lambda: None, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file, which is made if it is not there; wait for it as long as need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while not _taken(file, shared=shared):
            check()
            time.sleep(POLL_S)
        yield


def is_free(path: Path) -> bool:
    """Return whether there is no lock on this file, not even a shared one."""
    with path.open("a") as file:
        return _taken(file, shared=False)


def _taken(file: TextIO, *, shared: bool) -> bool:
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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
        with lock(self.folder / f"{name}.lock", check):
            scratch = self.folder / name
            remove(scratch)  # what a worker that was killed has left
            scratch.mkdir()
            try:
                yield scratch
            finally:
                remove(scratch)

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
    """Return this machine, as this user's workers share it.

    Raises EvaluationError when the folder is another user's.
    """
    folder = Path(tempfile.gettempdir()) / f"flare-batch-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise EvaluationError(f"{folder}: belongs to another user; set TMPDIR to another place")
    return Machine(folder)
