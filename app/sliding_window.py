"""nnU-Net's sliding window: overlapping patches, logits averaged under a Gaussian.

``predict_logits`` holds the whole volume and its sums, and rounds as nnU-Net does.
``predict_slabs`` goes along the first axis and holds one patch depth of either.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from app.resample import advance

_SIGMA = 1 / 8  # of the patch size
_TRUNCATE = 4  # sigmas, scipy's default
_PEAK = 10  # of the importance map

# A batch of windows (n, channels, z, y, x) to logits (n, heads, z, y, x), or to a function that
# waits for them.
Network = Callable[[Tensor], Tensor | Callable[[], Tensor]]


def window_starts(size: int, patch: int, step_size: float) -> list[int]:
    """First voxels of the patches along one axis; ``step_size`` is the largest step in patches.

    A patch of one section, of a network of two dimensions, goes to each section once.
    """
    if patch == 1:
        return list(range(size))
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
    padded, scan = _padded(shape, patch_size)
    pads = [(s.start, p - s.stop) for s, p in zip(scan, padded, strict=True)]
    if padded != list(shape):
        volume = F.pad(volume, [side for pair in pads[::-1] for side in pair])
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
    return logits[:, *scan]


def predict_slabs(
    slabs: Iterator[Tensor],
    shape: Sequence[int],
    networks: Sequence[Network],
    patch_size: Sequence[int],
    step_size: float,
    heads: int,
    on_window: Callable[[int, int], None],
    batch: int = 1,
) -> Iterator[Tensor]:
    """The mean of the networks' logits in float32, slab by slab along the first axis.

    ``slabs`` are (channel, planes, y, x) of a volume of ``shape`` (z, y, x) and are asked for when
    the next row of windows needs them. Yields (head, planes, y, x), every plane once and in order,
    on the slabs' device; a yielded tensor is overwritten when the next one is asked for. Windows
    of one row go through a network in batches of at most ``batch``. A network may return a function
    that waits for its logits: then the next batch is started before they are asked for.
    """
    padded, scan = _padded(shape, patch_size)
    rows, *columns = (
        window_starts(n, p, step_size) for n, p in zip(padded, patch_size, strict=True)
    )
    row_windows: list[tuple[Any, ...]] = [
        (..., *(slice(s, s + p) for s, p in zip(c, patch_size[1:], strict=True)))
        for c in itertools.product(*columns)
    ]
    groups = [row_windows[i : i + batch] for i in range(0, len(row_windows), batch)]
    of, done = len(rows) * len(row_windows) * len(networks), 0
    planes = _Planes(slabs)
    volume = planes.zeros((patch_size[0], *padded[1:]))
    logits = volume.new_zeros((heads, *volume.shape[1:]))
    weights = importance_map(patch_size, torch.float32).to(volume.device)
    total_z, total_plane = _sums_of_weights(padded, patch_size, step_size, len(networks), volume)
    fresh = patch_size[0]  # how many planes at the end of `volume` are new
    for row, following in itertools.pairwise([*rows, padded[0]]):
        inner = slice(max(patch_size[0] - fresh, scan[0].start), min(patch_size[0], scan[0].stop))
        planes.fill(volume[:, inner, *scan[1:]])
        pending: _Batch | None = None
        for group, network in itertools.product(groups, networks):
            started = _Batch(group, network(torch.stack([volume[window] for window in group])))
            if pending is not None:
                pending.add_to(logits, weights)
            if isinstance(started.made, Tensor):  # the next call may overwrite it
                started.add_to(logits, weights)
                pending = None
            else:
                pending = started
            del started  # its logits are not held beside the next window
            done += len(group)
            on_window(done, of)
        if pending is not None:
            pending.add_to(logits, weights)
        fresh = following - row
        final = logits[:, :fresh]
        final /= total_plane
        final /= total_z[row:following]
        yield final[:, scan[0] if len(rows) == 1 else slice(None), *scan[1:]]
        for held in (volume, logits):
            advance(held.movedim(1, 0), fresh)
        logits[:, patch_size[0] - fresh :] = 0


@dataclass(frozen=True)
class _Batch:
    """Some windows, and their logits or a function that waits for them."""

    windows: Sequence[tuple[Any, ...]]
    made: Tensor | Callable[[], Tensor]

    def add_to(self, logits: Tensor, weights: Tensor) -> None:
        """Add the weighted logits to the sums; they are changed."""
        patches = self.made if isinstance(self.made, Tensor) else self.made()
        patches *= weights
        for window, patch in zip(self.windows, patches, strict=True):
            logits[window] += patch


def window_count(shape: Sequence[int], patch_size: Sequence[int], step_size: float) -> int:
    """How many windows a volume of ``shape`` takes, padding included."""
    padded, _ = _padded(shape, patch_size)
    starts = (window_starts(n, p, step_size) for n, p in zip(padded, patch_size, strict=True))
    return math.prod(len(s) for s in starts)


def larger_steps(shape: Sequence[int], patch_size: Sequence[int], step_size: float) -> list[float]:
    """Steps above ``step_size``, up to 1, in order: the smallest for each number of windows."""
    padded, _ = _padded(shape, patch_size)
    steps = {1.0}
    for n, p in zip(padded, patch_size, strict=True):
        for intervals in range(1, len(window_starts(n, p, step_size))):
            # Rounded up: at the very step a rounding error could ask for one window more.
            steps.add((n - p) / (p * intervals) * (1 + 1e-9))
    found, fewest = [], window_count(shape, patch_size, step_size)
    for step in sorted(s for s in steps if step_size < s <= 1):
        if window_count(shape, patch_size, step) < fewest:
            fewest = window_count(shape, patch_size, step)
            found.append(step)
    return found


class _Planes:
    """The planes of consecutive slabs, as many at a time as are wanted."""

    def __init__(self, slabs: Iterator[Tensor]) -> None:
        self._slabs = slabs
        self._rest = next(slabs)

    def zeros(self, shape: Sequence[int]) -> Tensor:
        """A volume of zeros (channel, *shape) like the slabs."""
        return self._rest.new_zeros((len(self._rest), *shape))

    def fill(self, target: Tensor) -> None:
        """Write the next planes into (channel, planes, y, x)."""
        filled, wanted = 0, target.shape[1]
        while filled < wanted:
            if not self._rest.shape[1]:
                self._rest = next(self._slabs)
            part = self._rest[:, : wanted - filled]
            target[:, filled : filled + part.shape[1]] = part
            filled += part.shape[1]
            self._rest = self._rest[:, part.shape[1] :]


def _padded(shape: Sequence[int], patch_size: Sequence[int]) -> tuple[list[int], list[slice]]:
    """The shape that holds a patch at least, and where the scan lies in it, amid zeros."""
    padded = [max(n, p) for n, p in zip(shape, patch_size, strict=True)]
    starts = [(p - n) // 2 for n, p in zip(shape, padded, strict=True)]
    return padded, [slice(s, s + n) for s, n in zip(starts, shape, strict=True)]


def _sums_of_weights(
    shape: Sequence[int], patch_size: Sequence[int], step_size: float, passes: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Factors (z, 1, 1) and (y, x) of what ``passes`` importance maps over every window sum to.

    The map is a product over axes and the windows are every combination of starts, so the sum of
    products is the product of sums. (A map's smallest weight is some 4e-10, so that its clamp to
    more than zero does nothing in float32.)
    """
    sums = []
    for n, p in zip(shape, patch_size, strict=True):
        line, gaussian = np.zeros(n), _gaussian(p)
        for start in window_starts(n, p, step_size):
            line[start : start + p] += gaussian / gaussian.max()
        sums.append(torch.from_numpy(line))
    z, y, x = sums
    plane = y[:, None] * x * (_PEAK * passes)
    return z[:, None, None].to(like), plane.to(like)
