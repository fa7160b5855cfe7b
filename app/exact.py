"""The exact way: the whole volume at once, in nnU-Net's own arithmetic, rounding included.

prepare ─► preprocess in float64 ─► mean_logits, summed in float16 ─► restore
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from app.attempt import Means
from app.configuration import Configuration
from app.crop import Box
from app.labels import Probabilities, label_dtype
from app.model import ModelConfig
from app.preprocess import Grid, Prepared, preprocess
from app.restore import SLAB_VOXELS, Labels, restore, restore_probabilities
from app.sliding_window import predict_logits
from app.stream import check_finite


def label_parts(scan: Prepared, of: Configuration, means: Means) -> Iterator[Labels]:
    """All labels (z, y, x) of the scan, in one part."""
    logits = _logits(scan, of, means)
    with means.clock.stage("restore"):
        labels = restore(logits, of.rule, of.config, scan.grid, label_dtype(of.config))
    yield labels


def probability_parts(
    ways: Sequence[tuple[Prepared, Configuration, Means]],
) -> Iterator[Probabilities]:
    """The mean probabilities (class, planes, y, x) of configurations that see one scan.

    In parts along the scan's first axis; the logits of all are held. Summed in their order and
    divided at the end, as `nnUNetv2_ensemble` does it.
    """
    inside = []
    for scan, of, means in ways:
        logits = _logits(scan, of, means)
        with means.clock.stage("restore"):
            boxed = restore_probabilities(logits, of.rule, of.config, scan.grid)
        inside.append((boxed, of.config.transpose))
    scan, of, means = ways[0]
    yield from means.clock.timed("restore", _mean_planes(inside, scan.grid, of))


def _mean_planes(
    inside: Sequence[tuple[Callable[[Box], Tensor], Sequence[int]]], grid: Grid, of: Configuration
) -> Iterator[Probabilities]:
    """What functions of a box of their crop, and its transposition, say on average of the scan.

    ``grid`` is that of the first one, ``of``.
    """
    classes, back = len(of.config.labels), np.argsort(inside[0][1])
    crop, shape = (tuple(of_axis[i] for i in back) for of_axis in (grid.crop, grid.shape))
    (start, stop), plane = (crop[0].start, crop[0].stop), [s.stop - s.start for s in crop[1:]]
    depth = max(1, SLAB_VOXELS // (classes * math.prod(plane)))

    def background(planes: int) -> Probabilities:
        return of.rule.background(classes, (planes, *shape[1:]))

    yield from (background(1) for _ in range(start))
    for first in range(0, stop - start, depth):
        box = slice(first, min(first + depth, stop - start)), *(slice(0, n) for n in plane)
        total: Tensor | None = None
        for boxed, transpose in inside:
            axes = [0, *(1 + int(i) for i in np.argsort(transpose))]
            part = boxed(tuple(box[i] for i in transpose)).permute(axes)
            total = part if total is None else total + part
        assert total is not None
        whole = background(box[0].stop - first)
        whole[..., *crop[1:]] = (total / len(inside)).numpy()
        yield whole
    yield from (background(1) for _ in range(shape[0] - stop))


def _logits(scan: Prepared, of: Configuration, means: Means) -> Tensor:
    """Mean logits (head, z, y, x) of the configuration's networks, on the host."""
    with means.clock.stage("preprocess"):
        volume = preprocess(scan, of.config, torch.float64, means.buffers)
    with means.clock.stage("network"):
        return mean_logits(volume, of.config, of.heads, means).cpu()


def mean_logits(volume: Tensor, config: ModelConfig, heads: int, means: Means) -> Tensor:
    """Mean logits (head, z, y, x) of the ensemble, in float16, of (channel, z, y, x).

    Raises ValueError where one is not finite.
    """
    total: Tensor | None = None
    of_passes = len(means.passes)
    for number, one_pass in enumerate(means.passes):

        def progress(done: int, of: int, before: int = number) -> None:
            means.on_window(before * of + done, of_passes * of)

        def on_device(x: Tensor, run: Callable[[Tensor], Tensor] = one_pass) -> Tensor:
            return run(x.to(means.device)).to(x.device)

        logits = predict_logits(
            volume,
            on_device,
            config.patch_size,
            means.step_size,
            heads,
            torch.float16,
            progress,
        )
        total = logits if total is None else total.add_(logits)
    assert total is not None
    if of_passes > 1:
        total /= of_passes
    return check_finite(total)
