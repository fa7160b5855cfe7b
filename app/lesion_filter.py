"""Takes lesions that are too small or too unlikely out of the logits, before they become labels.

Lesions are the 26-connected components of voxels that are lesion rather than background, on the
network's grid. What is taken out becomes background as surely as it was lesion, so that nothing of
it comes back when logits are interpolated; what stays is not touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.model import LesionFilter
from app.preprocess import Grid

CONNECTIVITY = 26


@dataclass(frozen=True)
class Components:
    """The lesions in some planes of logits.

    ``labels`` (z, y, x): 0 is background. ``voxels`` and ``peak``, the largest logit, have an entry
    for each label, that of the background (0 and minus infinity) included.
    """

    labels: NDArray[np.integer]
    voxels: Tensor
    peak: Tensor


def find(logits: Tensor) -> Components:
    """The lesions in (1, z, y, x) differences of logits on the CPU: lesion where positive."""
    lesion = logits[0] > 0
    labels = cc3d.connected_components(lesion.numpy(), connectivity=CONNECTIVITY)
    of_voxel = torch.from_numpy(labels.astype(np.int64))[lesion]
    count = int(labels.max()) + 1
    lowest = torch.full((count,), -math.inf)
    peak = lowest.scatter_reduce(0, of_voxel, logits[0][lesion].float(), "amax")
    return Components(labels, torch.bincount(of_voxel, minlength=count), peak)


def remove(logits: Tensor, rule: LesionFilter, voxel_ml: float) -> None:
    """Make background, in place, of the lesions that ``rule`` does not keep; see `find`."""
    found = find(logits)
    stays = found.voxels * voxel_ml >= rule.min_volume_ml
    stays &= torch.sigmoid(found.peak) >= rule.min_probability
    stays[0] = True
    gone = ~stays[torch.from_numpy(found.labels.astype(np.int64))]
    logits[0][gone] *= -1


def remove_slabs(
    slabs: Iterator[Tensor], rule: LesionFilter, voxel_ml: float, planes: int
) -> Iterator[Tensor]:
    """The same for slabs (1, planes, y, x) that follow each other along z.

    A plane without lesion ends every lesion before it. What comes before such a plane is held on
    the host until then, and handed on, to where it came from, at most ``planes`` at a time.
    """
    held: list[Tensor] = []
    for slab in slabs:
        closed = _closed(slab)
        if closed and (held or bool((slab[:, :closed] > 0).any())):
            held.append(slab[:, :closed].to("cpu", copy=True))
            yield from _released(held, rule, voxel_ml, planes, slab.device)
            held = []
        elif closed:
            yield slab[:, :closed]
        if closed < slab.shape[1]:
            held.append(slab[:, closed:].to("cpu", copy=True))
            device = slab.device
    if held:
        yield from _released(held, rule, voxel_ml, planes, device)


def voxel_ml(grid: Grid, shape: tuple[int, ...]) -> float:
    """Volume of a voxel of the network's grid of ``shape`` (z, y, x) over the scan's crop."""
    extents = (n * mm for n, mm in zip(grid.cropped_shape, grid.spacing, strict=True))
    return math.prod(extents) / math.prod(shape) / 1000


def _closed(slab: Tensor) -> int:
    """How many planes there are up to the last one without lesion, that one included."""
    empty = ~(slab[0] > 0).flatten(1).any(1)
    return int(empty.nonzero().max()) + 1 if bool(empty.any()) else 0


def _released(
    held: list[Tensor], rule: LesionFilter, voxel_ml: float, planes: int, device: torch.device
) -> Iterator[Tensor]:
    block = torch.cat(held, 1)
    remove(block, rule, voxel_ml)
    yield from (part.to(device) for part in block.split(planes, 1))
