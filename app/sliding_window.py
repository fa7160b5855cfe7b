"""nnU-Net's sliding window: overlapping patches, logits averaged under a Gaussian."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

_SIGMA = 1 / 8  # of the patch size
_TRUNCATE = 4  # sigmas, scipy's default
_PEAK = 10  # of the importance map


def window_starts(size: int, patch: int, step_size: float) -> list[int]:
    """First voxels of the patches along one axis; ``step_size`` is the largest step in patches."""
    steps = math.ceil((size - patch) / (patch * step_size)) + 1
    spread = (size - patch) / max(steps - 1, 1)
    return [int(np.round(spread * i)) for i in range(steps)]


def windows(
    shape: Sequence[int], patch_size: Sequence[int], step_size: float
) -> Iterator[tuple[slice, ...]]:
    """The patches in nnU-Net's order, last axis fastest."""
    starts = (window_starts(n, p, step_size) for n, p in zip(shape, patch_size, strict=True))
    for corner in itertools.product(*starts):
        yield tuple(slice(s, s + p) for s, p in zip(corner, patch_size, strict=True))


def importance_map(patch_size: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Weight of each voxel of a patch: a Gaussian around its centre, 10 at most, never zero."""
    a, b, c = (_gaussian(n) for n in patch_size)
    gaussian = a[:, None, None] * b[:, None] * c
    gaussian /= gaussian.max() / _PEAK
    weights = torch.from_numpy(gaussian).to(dtype)
    return weights.clamp_(min=float(weights[weights > 0].min()))


def _gaussian(n: int) -> NDArray[np.float64]:
    """scipy.ndimage.gaussian_filter of a unit impulse at n // 2, one axis."""
    sigma = n * _SIGMA
    radius = int(_TRUNCATE * sigma + 0.5)
    kernel = np.exp(-0.5 / (sigma * sigma) * np.arange(-radius, radius + 1) ** 2)
    kernel /= kernel.sum()
    line = np.zeros(n)
    first = n // 2 - radius
    for i in range(max(first, 0), min(first + len(kernel), n)):
        line[i] = kernel[i - first]
    return line


def mirrored(
    network: Callable[[Tensor], Tensor], axes: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Test-time augmentation: the mean over every combination of mirrored spatial ``axes``."""
    combinations = [
        [a + 2 for a in c] for n in range(len(axes)) for c in itertools.combinations(axes, n + 1)
    ]

    def predict(x: Tensor) -> Tensor:
        total = network(x)
        for flipped in combinations:
            total += torch.flip(network(torch.flip(x, flipped)), flipped)
        total /= len(combinations) + 1
        return total

    return predict


def predict_logits(
    volume: Tensor,
    network: Callable[[Tensor], Tensor],
    patch_size: Sequence[int],
    step_size: float,
    heads: int,
    accumulate: torch.dtype,
    on_window: Callable[[int, int], None],
) -> Tensor:
    """Logits (head, z, y, x) of a (channel, z, y, x) volume, in ``accumulate``'s precision.

    The volume is padded with zeros to at least a patch, the result cropped back. ``network`` maps
    a batch of one patch to its logits, a new tensor, and decides its own precision; nnU-Net
    accumulates in float16, whatever the network's. ``on_window(done, of)`` is told of progress.
    """
    shape = volume.shape[1:]
    missing = [max(p - n, 0) for n, p in zip(shape, patch_size, strict=True)]
    before = [m // 2 for m in missing]
    pads = [p for m, b in zip(missing[::-1], before[::-1], strict=True) for p in (b, m - b)]
    if any(missing):
        volume = F.pad(volume, pads)
    weights = importance_map(patch_size, accumulate).to(volume.device)
    logits = torch.zeros((heads, *volume.shape[1:]), dtype=accumulate, device=volume.device)
    total = torch.zeros(volume.shape[1:], dtype=accumulate, device=volume.device)
    todo = list(windows(volume.shape[1:], patch_size, step_size))
    for done, window in enumerate(todo, start=1):
        patch = network(volume[:, *window][None].contiguous())[0]
        patch *= weights
        logits[:, *window] += patch
        total[window] += weights
        on_window(done, len(todo))
    logits /= total
    return logits[:, *(slice(b, b + n) for b, n in zip(before, shape, strict=True))]
