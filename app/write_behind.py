"""A thread that writes what this one makes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_WAITING = 2  # parts that are made and not yet written
_PATIENCE_S = 0.05

T = TypeVar("T")


def write_behind(parts: Iterator[T], write: Callable[[Iterator[T]], None]) -> None:
    """Call ``write(parts)`` in a thread, while this one makes the parts.

    If making a part fails, ``write`` gets an exception from its iterator, so that it cleans up
    after itself; if writing fails, no more parts are made. Either way the cause is raised here.
    """
    pipe: queue.Queue[T | _End] = queue.Queue(_WAITING)

    def arriving() -> Iterator[T]:
        while not isinstance(part := pipe.get(), _End):
            yield part
        if part.abandoned:
            raise _Abandoned

    with ThreadPoolExecutor(max_workers=1) as pool:
        writing: Future[None] | None = None
        abandoned = True
        try:
            writing = pool.submit(write, arriving())  # an interrupt here may leave it running
            for part in parts:
                if not _put(pipe, part, writing):
                    break
            abandoned = False
        finally:
            _put(pipe, _End(abandoned), writing)
        writing.result()


class _Abandoned(Exception):
    """Ends a thread that writes what will never be complete."""


class _End:
    def __init__(self, abandoned: bool) -> None:
        self.abandoned = abandoned


def _put(pipe: queue.Queue[T], part: T, writing: Future[None] | None) -> bool:
    """False if there is nobody left who takes it."""
    while writing is None or not writing.done():
        try:
            pipe.put(part, timeout=_PATIENCE_S)
            return True
        except queue.Full:
            continue
    return False
