"""The deadline: after the first windows, what the rest costs, and a larger step if it is too much.

A step matters through the number of windows only, so there are few steps to choose from. A scan
that starts again does so from its voxels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.clock import StageClock
from app.listener import Tell
from app.sliding_window import larger_steps, window_count

# For what this process cannot see or measure: its end, the container's start and removal.
MARGIN_S = 2.0
# Windows take longer when a GPU gets warm or another program wants the processor.
_SLACK = 1.1
# Restoring and writing one head, in units of preprocessing, until they have been measured (README:
# 0.18 + 0.01 to 0.10 seconds, of a mask through the whole scan, which is the worst case).
_REST = 3.0


class TooSlow(Exception):
    """The scan should start again with ``step_size``; ``last`` if even that will be too late."""

    def __init__(self, message: str, step_size: float, last: bool) -> None:
        super().__init__(message)
        self.step_size, self.last = step_size, last


@dataclass(frozen=True)
class Forecast:
    """Seconds: ``left_s`` until the scan should be done, ``window_s`` per window and member.

    ``others_s`` is what the other stages take for a whole scan, ``spent_s`` what they took so far.
    """

    left_s: float
    window_s: float
    others_s: float
    spent_s: float = 0.0

    def rest_s(self, windows: int) -> float:
        """To go on to the end with so many windows, without slack: a step once chosen is kept."""
        return windows * self.window_s + max(self.others_s - self.spent_s, 0.0)

    def anew_s(self, windows: int) -> float:
        """To start again with so many windows."""
        return windows * self.window_s * _SLACK + self.others_s

    def choose(self, windows: Sequence[int]) -> int | None:
        """Index of the first of some numbers of windows, falling, that makes it; else None."""
        return next((i for i, n in enumerate(windows) if self.anew_s(n) <= self.left_s), None)


@dataclass(frozen=True)
class Work:
    """An attempt: ``passes`` networks of ``heads`` at each window of a volume of ``shape``."""

    shape: tuple[int, ...]
    patch_size: tuple[int, ...]
    step_size: float
    passes: int
    heads: int

    def windows(self, step_size: float) -> int:
        """How often a network runs."""
        return self.passes * window_count(self.shape, self.patch_size, step_size)


class Deadline:
    """Watches the windows of one attempt at a scan, and raises TooSlow if it will be late.

    ``at``: when the scan has to be done, on time.perf_counter's clock. ``before``: seconds in each
    stage that this attempt has no part in. ``device``: of the networks. Looked at after the second
    batch of windows (the first warms up) and each time that twice as many are done.
    """

    def __init__(
        self,
        at: float,
        work: Work,
        clock: StageClock,
        before: dict[str, float],
        device: torch.device,
        warn: Tell,
    ) -> None:
        self._at, self._work, self._clock, self._before = at, work, clock, before
        self._device, self._warn = device, warn
        self._warm: tuple[int, float] | None = None  # windows and seconds until the first look
        self._next: float = 0
        # Planes and seconds of preprocessing: until the first slab (all planes if there are none),
        # which the scan's range is looked up for, and now.
        self._first_slab: tuple[int, float] | None = None
        self._fed = work.shape[0]

    def feeding(self, slabs: Iterator[Tensor]) -> Iterator[Tensor]:
        """The same slabs (channel, planes, y, x), counted on their way to the windows."""
        self._fed = 0
        for slab in slabs:
            self._fed += slab.shape[1]
            if self._first_slab is None:
                self._first_slab = self._fed, self._laps()["preprocess"]
            yield slab

    def on_window(self, done: int, of: int) -> None:
        """To be called after each batch of windows, within the stage ``network``."""
        if done < self._next or done == of:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # until it has done what it was asked to
        laps = self._laps()
        self._next = 2 * done
        if self._warm is None:
            self._warm = done, laps["network"]
            return
        window_s = (laps.pop("network") - self._warm[1]) / (done - self._warm[0])
        before_s, along_s = self._preprocess(laps["preprocess"])
        after_s = (laps["restore"] + laps["write"]) * of / done
        others_s = before_s + along_s + max(after_s, _REST * self._work.heads * along_s)
        left_s = self._at - MARGIN_S - time.perf_counter()
        self._decide(Forecast(left_s, window_s, others_s, sum(laps.values())), of, of - done)

    def _laps(self) -> dict[str, float]:
        return {k: v - self._before[k] for k, v in self._clock.so_far().items()}

    def _preprocess(self, so_far_s: float) -> tuple[float, float]:
        """Seconds for a whole scan: those of the first slab, and those that go with its length."""
        planes, first_s = self._first_slab or (0, 0.0)
        if self._fed <= planes:  # one slab and no more yet
            planes, first_s = 0, 0.0
        rate = (so_far_s - first_s) / (self._fed - planes)
        return first_s, rate * (self._work.shape[0] - planes)

    def _decide(self, forecast: Forecast, of: int, to_go: int) -> None:
        late_s = forecast.rest_s(to_go) - forecast.left_s
        if late_s <= 0:
            return
        work = self._work
        steps = larger_steps(work.shape, work.patch_size, work.step_size)
        windows = [work.windows(s) for s in steps]
        message = (
            f"{forecast.window_s:.3g} s a window: {of} windows (step {work.step_size:.3g}) would "
            f"end {late_s:.1f} s after the time budget less {MARGIN_S:g} s"
        )
        chosen = forecast.choose(windows)
        if chosen is not None:
            again = f"starting again with step {steps[chosen]:.3g} ({windows[chosen]} windows)"
            raise TooSlow(f"{message}; {again}", steps[chosen], False)
        if steps and forecast.anew_s(windows[-1]) < forecast.rest_s(to_go):
            again = f"starting again with step {steps[-1]:.3g} ({windows[-1]} windows)"
            late_s = forecast.anew_s(windows[-1]) - forecast.left_s
            late = f"which will be {late_s:.1f} s late too"
            raise TooSlow(f"{message}; no step makes it; {again}, {late}", steps[-1], True)
        self._warn(f"{message}; no larger step would be sooner, going on")
        self._next = float("inf")
