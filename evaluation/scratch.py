"""What exists during a run only: folders that no other user can enter, and locks on files.

The kernel gives a lock back when its holder is killed, and whoever comes next removes what is left.
A container is given folders from here: their paths, which it can read in /proc/self/mountinfo, name
neither case nor results.
"""

import contextlib
import fcntl
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from evaluation.errors import EvaluationError

POLL_S = 0.05
PREFIX = "run-"

Check = Callable[[], object]  # called while something is waited for; raises to give up


def private() -> Path:
    """Return this user's folder on this machine; raises EvaluationError when others can enter it.

    A submission may leave programs there that run as root for whoever starts them.
    """
    folder = Path(tempfile.gettempdir()) / f"flare-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()  # a link is another's, too
    if facts.st_uid != os.getuid() or facts.st_mode != stat.S_IFDIR | 0o700:
        raise EvaluationError(
            f"{folder}: is not a folder of this user alone; remove it, or set TMPDIR to another"
            " place"
        )
    return folder


@contextlib.contextmanager
def folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder; those of programs that were killed are removed first."""
    with contextlib.ExitStack() as held:
        with lock(parent / "runs.lock"):
            for left in parent.glob(f"{PREFIX}*/"):
                if is_free(left):
                    remove(left)
            ours = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            held.enter_context(lock(ours))
        held.callback(remove, ours)
        yield ours


def remove(folder: Path) -> None:
    """Remove a folder, as far as that is possible: a container may leave what only root can."""
    # Not shutil.rmtree: a submission may nest folders deeper than Python's functions may.
    subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def lock(path: Path, check: Check = lambda: None, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on a file, which is made if need be, or a folder; wait as long as it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as descriptor:
        while not _taken(descriptor, shared=shared):
            check()
            time.sleep(POLL_S)
        yield


def is_free(path: Path) -> bool:
    """Return whether there is no lock on this file or folder, not even a shared one."""
    with _opened(path) as descriptor:
        return _taken(descriptor, shared=False)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int, *, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
