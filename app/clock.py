"""How long each stage takes, while stages call each other."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

STAGES = ("preprocess", "device", "network", "restore", "write")

T = TypeVar("T")


class StageClock:
    """Seconds that this thread spends in each of STAGES.

    What a GPU computes meanwhile counts where its result is waited for.
    """

    def __init__(self) -> None:
        self.laps = dict.fromkeys(STAGES, 0.0)
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
