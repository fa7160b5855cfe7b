"""Class probabilities on the scan's grid: their mean over models, and the labels they come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from app.labels import LabelRule, Probabilities
from app.restore import Labels


@dataclass(frozen=True)
class Part:
    """Some planes of a scan: labels (z, y, x), and (class or region, z, y, x) where asked for."""

    labels: Labels
    probabilities: Probabilities | None = None


def mean(models: Sequence[Iterator[Probabilities]]) -> Iterator[Probabilities]:
    """The mean of what models say of the same planes; they are cut as the models cut them.

    Summed in the models' order and divided at the end, as `nnUNetv2_ensemble` does it.
    """
    if len(models) == 1:
        yield from models[0]
        return
    rest = [next(model, None) for model in models]
    while True:
        known = [part for part in rest if part is not None]
        if len(known) < len(models):
            return
        planes = min(part.shape[1] for part in known)
        total = known[0][:, :planes].copy()
        for part in known[1:]:
            total += part[:, :planes]
        total /= len(known)
        yield total
        rest = [
            part[:, planes:] if part.shape[1] > planes else next(model, None)
            for part, model in zip(known, models, strict=True)
        ]


def decided(
    parts: Iterator[Probabilities], rule: LabelRule, dtype: torch.dtype, keep: bool
) -> Iterator[Part]:
    """Labels of ``dtype`` as nnU-Net takes them from probabilities, which go on if ``keep``."""
    for part in parts:
        yield Part(rule.most_likely(part, dtype), part if keep else None)
