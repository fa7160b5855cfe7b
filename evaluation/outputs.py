"""What a submission has written to the disk, and whether that is more than it may."""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

INTERVAL_S = 0.2  # between two looks
FILES = 1000  # that a submission may leave in outputs/


def excess(outputs: Path, limit_mib: float) -> str | None:
    """Say if outputs/ has grown beyond what a submission may write; links are not followed."""
    size = count = 0
    folders = [str(outputs)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    count += 1
                    if count > FILES:
                        return f"more than {FILES} files in outputs/"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # where nobody could look for what is in there
                return "folders nested deeper than a path is long in outputs/"
    return f"more than {limit_mib:g} MiB in outputs/" if size > limit_mib * 2**20 else None


class Nameless:
    """Files that were removed and are still open: no look at outputs/ finds them.

    members: the processes that there are at the moment. folder: on the disk that is meant. What is
    mapped into memory alone, or sent through a socket, is not found.
    """

    def __init__(self, members: Callable[[], Collection[int]], folder: Path) -> None:
        self._members, self._device = members, folder.stat().st_dev
        self._looked_s = -float("inf")

    def excess(self, limit_mib: float) -> str | None:
        """Say if they are larger than that; looks five times a second at most."""
        now = time.monotonic()
        if now - self._looked_s < INTERVAL_S:
            return None
        self._looked_s = now
        sizes: dict[int, int] = {}
        for pid in self._members():
            sizes |= self._of(pid)
        if sum(sizes.values()) <= limit_mib * 2**20:
            return None
        return f"stopped: more than {limit_mib:g} MiB in files that it has removed and not closed"

    def _of(self, pid: int) -> dict[int, int]:
        found = {}
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # it has just been closed
                    facts = descriptor.stat()
                    if facts.st_dev == self._device and not facts.st_nlink:
                        found[facts.st_ino] = facts.st_blocks * 512
        return found
