"""What an attempt works with, for tests of one stage."""

from __future__ import annotations

from app.attempt import Means
from app.clock import StageClock
from app.listener import SILENT, Listener
from app.memory.budget import Plan
from app.predict import Predictor


def ignore(done: int, of: int) -> None:
    """No progress wanted."""


def listener(warnings: list[str]) -> Listener:
    """One that collects warnings."""
    return Listener(ignore, SILENT.say, warnings.append)


def means(predictor: Predictor) -> Means:
    """One window at a time, everything on the predictor's own device."""
    device = predictor.options.device
    return Means(
        passes=predictor.on_device.passes(SILENT.say, SILENT.warn),
        device=device,
        buffers=device,
        plan=Plan(),
        step_size=predictor.options.step_size,
        clock=StageClock(),
        on_window=ignore,
        deadline=None,
    )
