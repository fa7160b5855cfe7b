"""Files that are there whole or not at all, and how one is known again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield where to write what `path` will be: it is as it was, or complete, whatever happens.

    The file that is yielded lies beside it under a hidden name with another suffix, as nobody who
    lists the folder may take it for a finished one. It takes its place on the disk when the block
    ends; if the block raises, it is removed. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())  # else the name may outlive the content when the power fails
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that it is as it was or complete; raises OSError."""
    with replacing(path) as part:
        part.write_bytes(content if isinstance(content, bytes) else content.encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal; raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
