"""Files that are there whole or not at all, and how one is known again."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from io import BufferedReader
from pathlib import Path
from typing import Any

# A name cut short, a digest of all of it, and the process that writes: no longer than any name.
_PART = re.compile(r"\..*\.[0-9a-f]{8}\.\d+\.unfinished", re.DOTALL)
_SHOWN = 40  # characters
_under_way: set[Path] = set()  # the parts that this process writes
STRANGERS_JSON_BYTES = 2**23  # in memory it may become twenty times as much


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write what `path` will be: it is as it was, or complete, whatever happens.

    The file that is yielded lies beside it under a hidden name with another suffix, as nobody who
    lists the folder may take it for a finished one. It takes its place on the disk when the block
    ends; if the block raises, it is removed. What a process that was killed has left in the folder
    is removed by the next that writes there. Raises OSError, which names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    part = path.with_name(f".{path.name[:_SHOWN]}.{digest}.{os.getpid()}.unfinished")
    try:
        with _held(part):
            yield part
            with part.open("rb") as file:
                os.fsync(file.fileno())  # else the name may outlive the content in a power cut
            part.replace(path)
    except OSError as error:
        # Of a full disk the kernel does not say where it is.
        if error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)
        raise


def discard_parts() -> None:
    """Remove what this process has not written to its end, before it ends at once."""
    for part in list(_under_way):
        part.unlink(missing_ok=True)


@contextmanager
def _held(part: Path) -> Iterator[None]:
    """Make a file that is gone in the end, and keep it locked: for so long it is not abandoned."""
    while True:
        file = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        _under_way.add(part)
        try:
            with suppress(OSError):  # a file system without locks: nothing is removed there either
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is(part, file):  # it was not removed before it was locked
                try:
                    yield
                finally:
                    part.unlink(missing_ok=True)
                return
        finally:
            os.close(file)
            _under_way.discard(part)


def _remove_abandoned(folder: Path) -> None:
    """Remove what nobody writes any more."""
    try:
        parts = [path for path in folder.iterdir() if _PART.fullmatch(path.name)]
    except PermissionError:  # to list it, which writing does not need
        return
    for part in parts:
        with suppress(OSError), part.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(part, file.fileno()):
                part.unlink()


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that it is as it was or complete; raises OSError."""
    with replacing(path) as part:
        part.write_bytes(content if isinstance(content, bytes) else content.encode())


class NotRegularError(OSError):
    """A pipe, a device or a folder, which one may wait for without end."""


@contextmanager
def reading(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file; raises NotRegularError, and OSError for what cannot be opened."""
    # Opening a pipe would wait for somebody to write to it.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise NotRegularError(errno.EINVAL, "not a regular file", str(path))
        with os.fdopen(file, "rb", closefd=False) as stream:
            yield stream
    finally:
        os.close(file)


def entries(folder: Path, pattern: str) -> list[Path]:
    """Return what a folder holds by a pattern of names, in order; nothing if there is no folder.

    Raises OSError for a folder that may not be read, which a glob takes for an empty one.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, pattern))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_json(path: Path, most_bytes: int | None = None) -> Any:
    """Return what a file of JSON holds; raises OSError, or ValueError if it is none.

    most_bytes: that it may have, if others wrote it.
    """
    with reading(path) as file:
        content = file.read(-1 if most_bytes is None else most_bytes + 1)
    if most_bytes is not None and len(content) > most_bytes:
        raise ValueError(f"larger than {most_bytes} bytes")
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal; raises OSError."""
    with reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
