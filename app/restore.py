"""From logits on the network's grid to labels, or probabilities, on the scan's grid.

For labels, logits are interpolated only where foreground is possible: outside the bounding box of
foreground on the coarse grid (one sample wider, as far as interpolation reaches) every voxel is
background.

``restore`` has all logits at once; ``restore_slabs`` has them slab by slab and holds back what the
next slab's first planes are mixed with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.crop import Box
from app.labels import LabelRule, Probabilities
from app.model import ModelConfig
from app.preprocess import Grid
from app.resample import (
    Taps,
    linear_taps,
    mix_linear,
    mix_linear_like_scipy,
    nearest_taps,
    resample_torch,
    separated_axis,
)

SLAB_VOXELS = 2**21  # interpolated at a time: what fits a processor's cache is fastest
SLAB_PLANES = 4  # of logits that are looked at together in a stream

Labels = NDArray[np.uint8] | NDArray[np.uint16]
Planes = NDArray[Any]  # of either kind (..., z, y, x)


def restore(
    logits: Tensor, rule: LabelRule, config: ModelConfig, grid: Grid, dtype: torch.dtype
) -> Labels:
    """(head, z, y, x) logits at the model's spacing to the scan's (z, y, x) labels of ``dtype``.

    With nnU-Net's own rounding.
    """
    axis = _separated(config, grid)
    labels = torch.zeros(grid.cropped_shape, dtype=dtype)
    if config.resample_logits.function == "torch":
        labels[...] = rule.decide(resample_torch(logits, grid.cropped_shape, axis))
    elif logits.shape[1:] == grid.cropped_shape:
        labels[...] = rule.decide(logits)
    else:
        _fill(labels, logits, rule, taps_of(logits.shape[1:], labels.shape, axis), _mix_like_nnunet)
    whole = np.zeros(grid.shape, labels.numpy().dtype)
    whole[grid.crop] = labels.numpy()
    back = np.argsort(config.transpose)
    return np.ascontiguousarray(whole.transpose(back))


def restore_probabilities(
    logits: Tensor, rule: LabelRule, config: ModelConfig, grid: Grid
) -> Callable[[Box], Tensor]:
    """A function that gives nnU-Net's probabilities (class, z, y, x) of a box of the crop.

    (head, z, y, x) logits are at the model's spacing; box and axes are in the network's order.
    """
    axis, shape = _separated(config, grid), grid.cropped_shape
    if config.resample_logits.function == "torch":
        logits = resample_torch(logits, shape, axis)
    if logits.shape[1:] == shape:
        return lambda box: rule.probabilities(logits[:, *box])
    taps = taps_of(logits.shape[1:], shape, axis)

    def inside(box: Box) -> Tensor:
        inputs, parts = cut(taps, box)
        return rule.probabilities(_mix_like_nnunet(logits[:, *inputs], parts))

    return inside


def restore_slabs(
    slabs: Iterator[Tensor],
    shape: Sequence[int],
    rule: LabelRule,
    config: ModelConfig,
    grid: Grid,
    dtype: torch.dtype,
) -> Iterator[Labels]:
    """The same in float32 for logits (head, planes, y, x) of ``shape`` (z, y, x) slab by slab.

    Yields all planes of the scan in order, axes in the network's order: undoing the transposition
    is left to the caller. How the logits are cut into slabs changes no label, but for ties in the
    last bit of several heads: there a slab's bounding box may be the smaller one.
    """

    def labels(logits: Tensor, taps: Sequence[Taps]) -> Iterator[Labels]:
        planes = torch.zeros([len(t.low) for t in taps], dtype=dtype)
        _fill(planes, logits, rule, taps, mix_linear)
        yield planes.numpy()

    def background(planes: int) -> Labels:
        labels: Labels = torch.zeros((planes, *grid.shape[1:]), dtype=dtype).numpy()
        return labels

    return _along(slabs, shape, config, grid, labels, background)


def restore_probability_slabs(
    slabs: Iterator[Tensor],
    shape: Sequence[int],
    rule: LabelRule,
    config: ModelConfig,
    grid: Grid,
) -> Iterator[Probabilities]:
    """The same for probabilities (class, planes, y, x): every voxel of the crop is interpolated."""
    classes = len(config.labels)

    def probabilities(logits: Tensor, taps: Sequence[Taps]) -> Iterator[Probabilities]:
        planes, *plane = taps
        count, depth = len(planes.low), _depth(classes, [len(t.low) for t in plane])
        for start in range(0, count, depth):
            inputs, some = _cut(planes, slice(start, min(start + depth, count)))
            mixed = mix_linear(logits[:, inputs], (some, *plane))
            # A copy even where the device is the host: so bytes are counted as they are on a GPU.
            yield np.array(rule.probabilities(mixed).cpu().numpy())
            del mixed

    def background(planes: int) -> Probabilities:
        return rule.background(classes, (planes, *grid.shape[1:]))

    return _along(slabs, shape, config, grid, probabilities, background)


def _along(
    slabs: Iterator[Tensor],
    shape: Sequence[int],
    config: ModelConfig,
    grid: Grid,
    make: Callable[[Tensor, Sequence[Taps]], Iterator[Planes]],
    background: Callable[[int], Planes],
) -> Iterator[Planes]:
    """What ``make`` makes of logits in planes of the crop, as planes of the scan, in order.

    ``background(planes)`` is what so many planes of the scan are where nothing was looked at.
    """
    taps_z, *taps_plane = taps_of(shape, grid.cropped_shape, _separated(config, grid))
    start, depth = grid.crop[0].start, grid.shape[0]
    yield from (background(1) for _ in range(start))
    held, first, done = None, 0, 0  # `held` are the planes from `first` on; `done` those restored
    for slab in slabs:
        for part in slab.split(SLAB_PLANES, 1):
            known = part if held is None else torch.cat((held, part), 1)
            end = first + known.shape[1]
            ready = int(np.searchsorted(taps_z.high, end))
            if ready > done:
                taps = (taps_z.part(slice(done, ready), first), *taps_plane)
                for made in make(known, taps):
                    yield _on_scan(made, grid, background)
            wanted = int(taps_z.low[ready]) if ready < len(taps_z.low) else end
            held = known[:, max(wanted - first, 0) :].clone() if wanted < end else None
            first, done = min(wanted, end), ready
    yield from (background(1) for _ in range(depth - start - done))


def _on_scan(made: Planes, grid: Grid, background: Callable[[int], Planes]) -> Planes:
    """Some planes of the crop as planes of the scan."""
    if grid.cropped_shape[1:] == grid.shape[1:]:
        return made
    whole, (_, y, x) = background(made.shape[-3]), grid.crop
    whole[..., y, x] = made
    return whole


def _separated(config: ModelConfig, grid: Grid) -> int | None:
    """The axis along which logits are taken from the nearest section."""
    current = config.spacing_on(grid.spacing)
    return separated_axis(current, grid.spacing, config.resample_logits.force_separate_z)


def taps_of(shape: Sequence[int], new_shape: Sequence[int], axis: int | None) -> tuple[Taps, ...]:
    """How each axis is interpolated: ``axis`` by nearest neighbour, one that keeps its length not.

    (The nearest neighbour of a sample is itself, and linear taps would add a zero to it.)
    """
    return tuple(
        nearest_taps(n, m) if i == axis or n == m else linear_taps(n, m)
        for i, (n, m) in enumerate(zip(shape, new_shape, strict=True))
    )


def fill(
    labels: Tensor,
    foreground: Tensor,
    taps: Sequence[Taps],
    heads: int,
    make: Callable[[Box], Tensor],
) -> None:
    """Write into ``labels``, zeros, what ``make`` gives of a box of them, slab by slab.

    Only where ``foreground`` (z, y, x), on the coarse grid, can have a part. ``taps``: for each
    axis, of every label on that grid; ``heads``: of how many each is made.
    """
    box = _bounding_box(foreground)
    if box is None:
        return
    outputs = []
    for t, inside in zip(taps, box, strict=True):
        touching = np.flatnonzero((t.high >= inside.start) & (t.low < inside.stop))
        if not len(touching):  # nearest neighbour can step over a thin foreground
            return
        outputs.append(slice(int(touching[0]), int(touching[-1]) + 1))
    slices, *plane = outputs
    depth = _depth(heads, [o.stop - o.start for o in plane])
    for start in range(slices.start, slices.stop, depth):
        slab = (slice(start, min(start + depth, slices.stop)), *plane)
        labels[slab] = make(slab).to("cpu", labels.dtype)


def _fill(
    labels: Tensor,
    logits: Tensor,
    rule: LabelRule,
    taps: Sequence[Taps],
    mix: Callable[[Tensor, Sequence[Taps]], Tensor],
) -> None:
    """Interpolate ``logits`` to the shape of ``labels`` and decide."""

    def decide(box: Box) -> Tensor:
        inputs, parts = cut(taps, box)
        return rule.decide(mix(logits[:, *inputs], parts))

    fill(labels, rule.may_be_foreground(logits), taps, len(logits), decide)


def _depth(heads: int, plane: Sequence[int]) -> int:
    """How many planes are interpolated at a time."""
    return max(1, SLAB_VOXELS // (heads * math.prod(plane)))


def cut(taps: Sequence[Taps], box: Box) -> tuple[Box, list[Taps]]:
    """The box of inputs that a box of outputs needs, and its taps on these inputs."""
    inputs, parts = zip(*(_cut(t, out) for t, out in zip(taps, box, strict=True)), strict=True)
    return inputs, list(parts)


def _cut(taps: Taps, outputs: slice) -> tuple[slice, Taps]:
    """The same of one axis."""
    first, last = int(taps.low[outputs].min()), int(taps.high[outputs].max())
    return slice(first, last + 1), taps.part(outputs, offset=first)


def _mix_like_nnunet(logits: Tensor, taps: Sequence[Taps]) -> Tensor:
    """nnU-Net's default resampling keeps float16, rounded once from float64.

    NumPy rounds once; torch goes through float32. Comparisons are then done in float32, which
    holds every float16.
    """
    mixed = mix_linear_like_scipy(logits, taps).numpy().astype(np.float16)
    return torch.from_numpy(mixed.astype(np.float32))


def _bounding_box(mask: Tensor) -> tuple[slice, ...] | None:
    box = []
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        index = mask.any(others[1]).any(others[0]).nonzero()
        if not len(index):
            return None
        box.append(slice(int(index[0]), int(index[-1]) + 1))
    return tuple(box)
