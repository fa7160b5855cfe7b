"""Takes lesions that are too small or too unlikely out of the logits, before they become labels.

Lesions are the 26-connected components of voxels that are lesion rather than background, on the
network's grid. What is taken out becomes background as surely as it was lesion, so that nothing of
it comes back when logits are interpolated; what stays is not touched, and since no voxel of it has
one of another lesion beside it, neither is what it becomes on the scan's grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.components import connected
from app.model import LesionFilter
from app.preprocess import Grid
from app.restore import SLAB_PLANES

CONNECTIVITY: Final = 26

# Planes (y, x) of logits, lesion minus background, that follow each other; or a volume of them.
Planes = Sequence[NDArray[np.float32]] | NDArray[np.float32]


@dataclass(frozen=True)
class Lesions:
    """The lesions in some planes, numbered from 1 in ``labels`` (z, y, x), where 0 is background.

    ``volume_ml`` and ``probability``, that of the most likely voxel, have an entry for each.
    """

    labels: NDArray[np.unsignedinteger]
    volume_ml: NDArray[np.floating]
    probability: NDArray[np.floating]

    def kept(self, rule: LesionFilter) -> NDArray[np.bool_]:
        """Which of them ``rule`` keeps."""
        large = self.volume_ml >= rule.min_volume_ml
        return large & (self.probability >= rule.min_probability)


def find(planes: Planes, voxel_ml: float) -> Lesions:
    """The lesions in some planes: where a logit is positive."""
    lesion = np.stack([plane > 0 for plane in planes])
    labels, count = connected(lesion, CONNECTIVITY)
    voxels = np.zeros(count + 1, np.int64)
    peak = np.zeros(count + 1, np.float64)
    for plane, inside, of_voxel in zip(planes, lesion, labels, strict=True):
        owners = of_voxel[inside]
        np.add.at(voxels, owners, 1)
        np.maximum.at(peak, owners, plane[inside])
    return Lesions(labels, voxels[1:] * voxel_ml, 1 / (1 + np.exp(-peak[1:])))


def take_out(planes: Planes, lesions: Lesions, kept: NDArray[np.bool_]) -> None:
    """Make background, in place, of the lesions of these planes that are not ``kept``."""
    goes = np.concatenate([[False], ~kept])
    for plane, of_voxel in zip(planes, lesions.labels, strict=True):
        plane[goes[of_voxel]] *= -1


def remove(planes: Planes, rule: LesionFilter, voxel_ml: float) -> None:
    """Make background, in place, of the lesions that ``rule`` does not keep."""
    lesions = find(planes, voxel_ml)
    take_out(planes, lesions, lesions.kept(rule))


def remove_slabs(
    slabs: Iterator[Tensor], rule: LesionFilter, voxel_ml: float, device: torch.device
) -> Iterator[Tensor]:
    """The same for slabs (1, planes, y, x) on ``device`` that follow each other along z.

    Some planes without lesion end every lesion before them. Planes with lesion are held on the host
    until such planes come, a whole scan's if none do, and then handed on, SLAB_PLANES at a time.
    """
    held: list[NDArray[np.float32]] = []
    for slab in slabs:
        for part in slab.split(SLAB_PLANES, 1):
            if (part > 0).any():
                held.append(part[0].cpu().numpy().copy())  # the next slab overwrites this one
            else:
                yield from _released(held, rule, voxel_ml, device)
                held.clear()
                yield part
    yield from _released(held, rule, voxel_ml, device)


def voxel_ml(grid: Grid, shape: Sequence[int]) -> float:
    """Volume of a voxel of the network's grid of ``shape`` (z, y, x) over the scan's crop."""
    extents = (n * mm for n, mm in zip(grid.cropped_shape, grid.spacing, strict=True))
    return math.prod(extents) / math.prod(shape) / 1000


def _released(
    held: Sequence[NDArray[np.float32]], rule: LesionFilter, voxel_ml: float, device: torch.device
) -> Iterator[Tensor]:
    if held:
        remove([plane for part in held for plane in part], rule, voxel_ml)
    for part in held:
        # A copy even where the device is the host: so bytes are counted as they would be on a GPU.
        yield torch.from_numpy(part)[None].to(device, copy=True)
