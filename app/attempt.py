"""One attempt at a scan after another: with less memory, or larger steps, until one succeeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from app.clock import StageClock
from app.deadline import Deadline, TooSlow
from app.listener import Tell
from app.memory.budget import Plan


@dataclass(frozen=True)
class Attempt:
    """One way to go through a scan; if it fails for want of memory or time, there is another.

    ``deadline`` is on time.perf_counter's clock; None: there is none.
    """

    plan: Plan
    step_size: float
    deadline: float | None

    def after(self, reason: torch.OutOfMemoryError | TooSlow, warn: Tell) -> Attempt:
        """The next attempt, announced; raises ``reason`` if there is none."""
        if isinstance(reason, TooSlow):
            warn(str(reason))
            deadline = None if reason.last else self.deadline
            return replace(self, step_size=reason.step_size, deadline=deadline)
        plan = self.plan.smaller()
        if plan is None:
            raise reason
        cause = ". ".join(" ".join(str(reason).split()).split(". ")[:2])
        warn(f"allocation failed ({cause}) with {self.plan}; starting again with {plan}")
        return replace(self, plan=plan)


@dataclass(frozen=True)
class Means:
    """What an attempt works with.

    ``passes``: each network of the ensemble as the sliding window calls it, on ``device``;
    ``buffers``: the device of everything else; ``deadline`` watches how fast the stages are.
    """

    passes: list[Callable[[Tensor], Tensor]]
    device: torch.device
    buffers: torch.device
    plan: Plan
    step_size: float
    clock: StageClock
    on_window: Callable[[int, int], None]
    deadline: Deadline | None
