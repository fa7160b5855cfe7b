"""What turns the stages into a stream, in which a scan's length costs no memory.

    sections ─► preprocess ─► predict ─► restore ─► in_scan_order ─► write_behind
                     slabs of input  of logits  of labels            (a thread)

Every stage is a generator that asks the one before it for the next slab when it needs it, and
holds only what a slab needs of its neighbours: a band of sections, one patch depth of input and of
sums, one plane of logits. (A model's lesion filter, before restore, holds planes with lesion until
some without follow.) The stages themselves are in the modules of their names.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from app.model import ModelConfig
from app.resample import separated_axis
from app.restore import SLAB_PLANES, Labels

_WAITING = 2  # parts of the mask between the stream and the thread that writes them
_PATIENCE_S = 0.05

T = TypeVar("T")


def can_stream(config: ModelConfig, spacing_zyx: Sequence[float]) -> bool:
    """Whether a scan of this spacing (mm) can go through section by section.

    Not if nnU-Net resamples it by sections across another axis than the network's first: each
    such section is clipped to its own range, which is known only when all of it has been seen.
    """
    spacing = [spacing_zyx[i] for i in config.transpose]
    force = config.resample_data.force_separate_z
    return separated_axis(spacing, config.spacing, force) in (None, 0)


def finite(logits: Tensor) -> Tensor:
    """The logits themselves; raises ValueError if one of them is not a number."""
    if not all(torch.isfinite(part).all() for part in logits.split(SLAB_PLANES, 1)):
        raise ValueError("the network gave logits that are not finite; check its weights")
    return logits


def in_scan_order(
    parts: Iterator[Labels], shape: Sequence[int], dtype: np.dtype[Any], transpose: Sequence[int]
) -> Iterator[Labels]:
    """Undo the transposition of labels that follow each other along the network's first axis.

    ``shape`` is that of the scan. Where the first axis is not the scan's, the labels are collected
    and come in one part.
    """
    if transpose[0] == 0:
        back = np.argsort(transpose)
        yield from (part.transpose(back) for part in parts)
        return
    whole = np.empty(shape, dtype)
    planes, done = whole.transpose(transpose), 0
    for part in parts:
        planes[done : done + len(part)] = part
        done += len(part)
    yield whole


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


class StageClock:
    """Seconds that this thread spends in each stage, while stages call each other.

    What a GPU computes meanwhile counts where its result is waited for.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self.laps = dict.fromkeys(stages, 0.0)
        self._within: list[str] = []
        self._last = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time counts for this stage, except what is spent in stages that it calls."""
        self._charge()
        self._within.append(name)
        try:
            yield
        finally:
            self._charge()
            self._within.pop()

    def timed(self, name: str, slabs: Iterable[T]) -> Iterator[T]:
        """The same slabs; the making of each counts for the stage."""
        iterator = iter(slabs)
        while True:
            with self.stage(name):
                try:
                    slab = next(iterator)
                except StopIteration:
                    return
            yield slab

    def so_far(self) -> dict[str, float]:
        """Seconds in each stage until now, the current one included."""
        self._charge()
        return self.laps.copy()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._within:
            self.laps[self._within[-1]] += now - self._last
        self._last = now
