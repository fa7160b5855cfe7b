"""What the stages work with, for tests of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from app.attempt import Means
from app.clock import StageClock
from app.image import Image, read_image
from app.listener import SILENT, Listener
from app.memory.budget import Plan
from app.model import load_model
from app.predict import Options, Predictor
from app.sliding_window import Network, predict_slabs
from tests.app.small_model import write_model
from tests.nnunet_models import smooth_noise, write_scan

PATCH = (8, 6, 7)


def ignore(done: int, of: int) -> None:
    """No progress wanted."""


def listener(warnings: list[str]) -> Listener:
    """One that collects warnings."""
    return Listener(ignore, SILENT.say, warnings.append)


def means(of: Predictor) -> Means:
    """One window at a time, everything on its own device."""
    device = of.options.device
    return Means(
        passes=of.on_device.passes(SILENT.say, SILENT.warn),
        device=device,
        buffers=device,
        plan=Plan(),
        step_size=of.options.step_size,
        clock=StageClock(),
        on_window=ignore,
        deadline=None,
    )


def predictor(folder: Path, options: Options, **changes: Any) -> Predictor:
    """Of CONFIG with ``changes`` and random weights, written in a folder below."""
    return Predictor(load_model(write_model(folder / "model", **changes)), options)


def image(
    folder: Path, shape: tuple[int, int, int], spacing_zyx: tuple[float, float, float]
) -> Image:
    """A scan as read from a file in the folder."""
    return read_image(write_scan(folder / "X.nii.gz", smooth_noise(shape, 0), spacing_zyx))


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
