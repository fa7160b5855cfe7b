"""The exact way: the whole volume at once, in nnU-Net's own arithmetic, rounding included.

prepare ─► preprocess in float64 ─► mean_logits, summed in float16 ─► restore
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from app.attempt import Means
from app.labels import LabelRule, label_dtype
from app.model import ModelConfig
from app.preprocess import Prepared, preprocess
from app.restore import Labels, restore
from app.sliding_window import predict_logits
from app.stream import check_finite


def label_parts(
    scan: Prepared, config: ModelConfig, rule: LabelRule, heads: int, means: Means
) -> Iterator[Labels]:
    """All labels (z, y, x) of the scan, in one part."""
    with means.clock.stage("preprocess"):
        volume = preprocess(scan, config, torch.float64, means.buffers)
    with means.clock.stage("network"):
        logits = mean_logits(volume, config, heads, means)
    with means.clock.stage("restore"):
        labels = restore(logits.cpu(), rule, config, scan.grid, label_dtype(config))
    yield labels


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
