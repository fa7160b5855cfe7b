"""One attempt at a scan after another: with less memory, or larger steps, until one succeeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from app.deadline import TooSlow
from app.memory.budget import Plan


def unheard(message: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Attempt:
    """One way to go through a scan; if it fails for want of memory or time, there is another.

    ``deadline`` is on time.perf_counter's clock; None: there is all the time in the world.
    ``say`` and ``warn`` are for what a user should know, a line each.
    """

    plan: Plan
    step_size: float
    deadline: float | None = None
    warn: Callable[[str], None] = unheard
    say: Callable[[str], None] = unheard

    def after(self, reason: torch.OutOfMemoryError | TooSlow) -> Attempt:
        """The next attempt, announced; raises ``reason`` if there is none."""
        if isinstance(reason, TooSlow):
            self.warn(str(reason))
            deadline = None if reason.last else self.deadline
            return replace(self, step_size=reason.step_size, deadline=deadline)
        plan = self.plan.smaller()
        if plan is None:
            raise reason
        cause = ". ".join(" ".join(str(reason).split()).split(". ")[:2])
        self.warn(f"allocation failed ({cause}) with {self.plan}; starting again with {plan}")
        return replace(self, plan=plan)
