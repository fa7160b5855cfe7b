"""A cascade's first stage as its second one sees it: labels on the network's grid, one-hot.

The rules are nnU-Net's: labels go through the same crop as the scan, where what lies around it gets
a label of its own, and are resampled by a vote of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.crop import Box
from app.model import PreviousStage
from app.preprocess import Voxels, filled
from app.resample import Taps, mix_linear_like_scipy, nearest_taps, separated_axis
from app.restore import Labels, cut, fill, taps_of

_AROUND = -1  # nnU-Net's label of what is around the scan in its bounding box
_PRODUCTS = 8  # in float64, of which each voxel's share is the sum


@dataclass(frozen=True)
class OneHot:
    """Further channels of a network's input: for each of ``values`` where ``labels`` have it.

    ``labels`` (z, y, x) are on the network's grid.
    """

    labels: NDArray[np.int16]
    values: tuple[int, ...]

    def planes(self, part: slice, device: torch.device) -> list[Tensor]:
        """Some planes (z, y, x) of each channel, float32."""
        labels = torch.from_numpy(self.labels[part]).to(device)
        return [(labels == value).float() for value in self.values]


def one_hot(
    labels: Labels,
    stage: PreviousStage,
    crops: Sequence[Voxels],
    box: Box,
    shape: Sequence[int],
    spacings: tuple[Sequence[float], Sequence[float]],
) -> OneHot:
    """What a network's grid of ``shape`` holds of labels on the scan.

    All axes are in the network's order; ``crops`` of the channels lie in ``box`` of the scan, whose
    spacing is the first of ``spacings`` (mm), the network's the second.
    """
    inside = labels[box].astype(np.int16)
    around = _around(crops)
    if around is not None:
        inside[(inside == 0) & around] = _AROUND
    axis = separated_axis(*spacings, stage.force_separate_z)
    return OneHot(resampled(inside, shape, axis), stage.labels)


def resampled(
    labels: NDArray[np.int16], shape: Sequence[int], axis: int | None
) -> NDArray[np.int16]:
    """Labels (z, y, x) at ``shape``; nearest neighbour along ``axis``. Background is 0 or less.

    nnU-Net's ``resample_data_or_seg`` with batchgenerators' vote: each label's share of a voxel is
    interpolated linearly, the largest wins, and in a tie that of the nearest voxel, if it is one of
    the largest, else the lowest.
    """
    if labels.shape == tuple(shape):
        return labels
    voted = torch.zeros(tuple(shape), dtype=torch.int16)
    taps = taps_of(labels.shape, shape, axis)
    given = torch.from_numpy(labels)
    fill(voted, given > 0, taps, _PRODUCTS, _vote(given, shape, taps))
    found: NDArray[np.int16] = voted.numpy()
    return found


def _vote(labels: Tensor, shape: Sequence[int], taps: Sequence[Taps]) -> Callable[[Box], Tensor]:
    """A function that gives the labels of a box of the result."""
    values = torch.unique(labels).tolist()
    nearest = [
        torch.from_numpy(nearest_taps(n, m).low) for n, m in zip(labels.shape, shape, strict=True)
    ]

    def of(box: Box) -> Tensor:
        z, y, x = (line[part] for line, part in zip(nearest, box, strict=True))
        near = labels[z[:, None, None], y[:, None], x]
        inputs, parts = cut(taps, box)
        around, most = labels[inputs], torch.zeros(near.shape, dtype=torch.float64)
        winner, of_near = torch.full_like(near, values[0]), torch.zeros_like(most)
        for value in values:
            share = mix_linear_like_scipy((around == value)[None], parts)[0]
            winner[share > most] = value
            torch.maximum(most, share, out=most)
            of_near = torch.where(near == value, share, of_near)
        return torch.where((of_near == most) & (of_near > 0), near, winner)

    return of


def _around(crops: Sequence[Voxels]) -> NDArray[np.bool_] | None:
    """Zeros of all channels that reach the edge of the crop; None if there are none."""

    def empty(index: tuple[slice | int, ...]) -> bool:
        return not np.logical_or.reduce([crop[index] != 0 for crop in crops]).all()

    faces = [(*[slice(None)] * axis, end) for axis in range(3) for end in (0, -1)]
    if not any(empty(face) for face in faces):
        return None
    return ~filled(np.logical_or.reduce([crop != 0 for crop in crops]))
