"""The streamed way, in which a scan's length costs no memory: what is used unless --exact asks.

    sections ─► preprocess ─► predict ─► restore ─► Orientation.stored
                     slabs of input  of logits  of labels

Every stage is a generator that asks the one before it for the next slab when it needs it, and
holds only what a slab needs of its neighbours: a band of sections, one patch depth of input and of
sums, one plane of logits. (A model's lesion filter, before restore, holds planes with lesion until
some without follow.) A scan that nnU-Net resamples by sections across another axis than the
network's first goes through as one slab. The stages themselves are in the modules of their names.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from app.attempt import Means
from app.configuration import Configuration
from app.host_windows import Uploaded
from app.labels import LabelRule, Probabilities, label_dtype, numpy_dtype
from app.model import ModelConfig
from app.preprocess import Prepared, preprocess_slabs
from app.restore import (
    SLAB_PLANES,
    Labels,
    restore_probability_slabs,
    restore_slabs,
)
from app.sliding_window import Network, predict_slabs
from volumes.orientation import Orientation


def label_parts(scan: Prepared, of: Configuration, means: Means) -> Iterator[Labels]:
    """The labels of the scan in parts along its first axis, each made when it is asked for."""
    parts = label_slabs(_kept_slabs(scan, of, means), scan, of.config, of.rule)
    return means.clock.timed("restore", parts)


def probability_parts(scan: Prepared, of: Configuration, means: Means) -> Iterator[Probabilities]:
    """The same for probabilities (class, planes, y, x)."""
    config, logits = of.config, _kept_slabs(scan, of, means)
    parts = restore_probability_slabs(logits, scan.shape, of.rule, config, scan.grid)
    shape = len(config.labels), *(scan.grid.shape[i] for i in np.argsort(config.transpose))
    ordered = Orientation(config.transpose).stored(parts, shape, np.dtype(np.float32))
    return means.clock.timed("restore", ordered)


def _kept_slabs(scan: Prepared, of: Configuration, means: Means) -> Iterator[Tensor]:
    """Logits in slabs, after the model's lesion filter if it has one."""
    logits = logit_slabs(scan, of.config, of.heads, means)
    if of.lesion_filter is None:
        return logits
    # Imported where it is used: it brings a library of its own.
    from app.lesion_filter import remove_slabs, voxel_ml

    return remove_slabs(logits, of.lesion_filter, voxel_ml(scan.grid, scan.shape), means.buffers)


def logit_slabs(scan: Prepared, config: ModelConfig, heads: int, means: Means) -> Iterator[Tensor]:
    """Mean logits (head, planes, y, x) in slabs, each made when it is asked for.

    A slab is overwritten when the next one is asked for. One that is not finite raises ValueError.
    """
    passes: list[Network] = [*means.passes]
    if means.buffers != means.device:
        passes = [Uploaded(one_pass, means.device) for one_pass in means.passes]
    slabs = preprocess_slabs(scan, config, means.buffers, means.plan.sections)
    slabs = means.clock.timed("preprocess", slabs)
    if means.deadline is not None:
        slabs = means.deadline.feeding(slabs)
    logits = predict_slabs(
        slabs,
        scan.shape,
        passes,
        config.patch_size,
        means.step_size,
        heads,
        means.on_window,
        means.plan.windows,
    )
    return means.clock.timed("network", map(check_finite, logits))


def label_slabs(
    logits: Iterator[Tensor], scan: Prepared, config: ModelConfig, rule: LabelRule
) -> Iterator[Labels]:
    """The labels that slabs of logits (head, planes, y, x) come to, in parts along the scan's z."""
    dtype = label_dtype(config)
    labels = restore_slabs(logits, scan.shape, rule, config, scan.grid, dtype)
    shape = [scan.grid.shape[i] for i in np.argsort(config.transpose)]
    return Orientation(config.transpose).stored(labels, shape, numpy_dtype(dtype))


def check_finite(logits: Tensor) -> Tensor:
    """The logits themselves; raises ValueError if one of them is not a number."""
    if not all(torch.isfinite(part).all() for part in logits.split(SLAB_PLANES, 1)):
        raise ValueError("the network gave logits that are not finite; check its weights")
    return logits
