"""From logits on the network's grid to a label map on the scan's grid.

Only where foreground is possible are logits interpolated: outside the bounding box of foreground
on the coarse grid (one sample wider, as far as interpolation reaches) every voxel is background.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.labels import LabelRule
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

_SLAB_VOXELS = 2**24  # interpolated at a time: bounds the memory of the float logits


def restore(
    logits: Tensor,
    rule: LabelRule,
    config: ModelConfig,
    grid: Grid,
    dtype: torch.dtype,
    exact: bool,
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(head, z, y, x) logits at the model's spacing to the scan's (z, y, x) labels of ``dtype``.

    ``exact`` follows nnU-Net's own rounding; otherwise float32 throughout.
    """
    axis = separated_axis(config.spacing, grid.spacing, config.resample_logits.force_separate_z)
    labels = torch.zeros(grid.cropped_shape, dtype=dtype)
    if exact and config.resample_logits.function == "torch":
        labels[...] = rule.decide(resample_torch(logits, grid.cropped_shape, axis))
    elif logits.shape[1:] == grid.cropped_shape:
        labels[...] = rule.decide(logits)
    else:
        mix = _mix_like_nnunet if exact else mix_linear
        _fill(labels, logits, rule, axis, mix)
    whole = np.zeros(grid.shape, labels.numpy().dtype)
    whole[grid.crop] = labels.numpy()
    back = np.argsort(config.transpose)
    return np.ascontiguousarray(whole.transpose(back))


def _fill(
    labels: Tensor,
    logits: Tensor,
    rule: LabelRule,
    axis: int | None,
    mix: Callable[[Tensor, Sequence[Taps]], Tensor],
) -> None:
    """Interpolate ``logits`` to the shape of ``labels`` and decide, slab by slab."""
    box = _bounding_box(rule.may_be_foreground(logits))
    if box is None:
        return
    taps, outputs = [], []
    for i, (n_in, n_out) in enumerate(zip(logits.shape[1:], labels.shape, strict=True)):
        t = nearest_taps(n_in, n_out) if i == axis else linear_taps(n_in, n_out)
        touching = np.flatnonzero((t.high >= box[i].start) & (t.low < box[i].stop))
        if not len(touching):  # nearest neighbour can step over a thin foreground
            return
        taps.append(t)
        outputs.append(slice(int(touching[0]), int(touching[-1]) + 1))
    slices, *plane = outputs
    depth = max(1, _SLAB_VOXELS // (len(logits) * math.prod(o.stop - o.start for o in plane)))
    for start in range(slices.start, slices.stop, depth):
        slab = (slice(start, min(start + depth, slices.stop)), *plane)
        inputs, parts = zip(*(_cut(t, out) for t, out in zip(taps, slab, strict=True)), strict=True)
        labels[slab] = rule.decide(mix(logits[:, *inputs], parts)).to("cpu", labels.dtype)


def _cut(taps: Taps, outputs: slice) -> tuple[slice, Taps]:
    """The inputs that some outputs need, and their taps on these inputs."""
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
