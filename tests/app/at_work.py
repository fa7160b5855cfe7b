"""What the stages work with, for tests of one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from app.attempt import Means
from app.clock import StageClock
from app.listener import SILENT, Listener
from app.memory.budget import Plan
from app.predict import Predictor
from app.sliding_window import Network, predict_slabs

PATCH = (8, 6, 7)


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


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal deviates."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slid(
    volume: Tensor,
    networks: Sequence[Network],
    step_size: float = 0.5,
    planes: int = 5,
    batch: int = 1,
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Three heads' logits of a volume that comes in slabs of so many planes, and the progress."""
    told: list[tuple[int, int]] = []
    slabs = predict_slabs(
        iter(volume.split(planes, 1)),
        volume.shape[1:],
        networks,
        PATCH,
        step_size,
        3,
        lambda done, of: told.append((done, of)),
        batch,
    )
    return torch.cat([slab.clone() for slab in slabs], 1), told
