"""nnU-Net's default resampling as nnU-Net has it: scipy on the whole array, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]


def zoom(
    volume: Array, shape: Sequence[int], order: int, axis: int | None = None, clip: bool = False
) -> Array:
    """``volume`` at another shape; across ``axis``, if any, by nearest neighbour.

    ``clip``: to the range of the volume, or of each section across ``axis``, as nnU-Net does.
    """
    if axis is None:
        factors = [o / i for i, o in zip(volume.shape, shape, strict=True)]
        resized: Array = ndimage.zoom(
            volume.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True
        )
        assert resized.shape == tuple(shape)
        return resized.clip(volume.min(), volume.max()) if clip else resized
    plane = [n for i, n in enumerate(shape) if i != axis]
    sections = np.stack([zoom(s, plane, order, clip=clip) for s in np.moveaxis(volume, axis, 0)])
    return np.moveaxis(sections[nearest(len(sections), shape[axis])], 0, axis)


def nearest(n_in: int, n_out: int) -> Array:
    """The sample that each of ``n_out`` takes."""
    coordinates = (n_in / n_out) * (np.arange(n_out) + 0.5) - 0.5
    positions = np.arange(n_in, dtype=np.float64)
    found: Array = ndimage.map_coordinates(positions, [coordinates], order=0, mode="nearest")
    return found.astype(np.int64)
