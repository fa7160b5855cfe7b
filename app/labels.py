"""What logits mean: the one authority for turning heads into labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.model import ModelConfig

Probabilities = NDArray[np.float32]  # (class or region, z, y, x)


@dataclass(frozen=True)
class LabelRule:
    """How a voxel's logits become its label.

    ``regions`` None: heads compete, the largest wins, its index is the label and ties go to the
    lower one. Otherwise heads are independent: each paints its value, in order, where its
    probability exceeds one half. ``folded``: the one head is the lesion's logit minus the
    background's, of two classes that compete.
    """

    regions: tuple[int, ...] | None
    folded: bool = False

    def decide(self, logits: Tensor) -> Tensor:
        """(head, ...) logits to (...) labels, int16 for regions and int64 for classes."""
        if self.regions is None:
            return logits.argmax(0)
        labels = torch.zeros(logits.shape[1:], dtype=torch.int16, device=logits.device)
        for logit, value in zip(logits, self.regions, strict=True):
            # nnU-Net's test: the rounding of sigmoid makes the tiniest positive logit background
            labels[torch.sigmoid(logit.float()) > 0.5] = value
        return labels

    def probabilities(self, logits: Tensor) -> Tensor:
        """(head, ...) logits to float32 probabilities (class or region, ...), as nnU-Net's.

        Both classes' where two are folded into one head.
        """
        if self.regions is None:
            return torch.softmax(logits.float(), 0)
        if self.folded:
            logits = torch.cat((-logits, logits))
        return torch.sigmoid(logits.float())

    def most_likely(self, probabilities: Probabilities, dtype: torch.dtype) -> NDArray[Any]:
        """(class or region, ...) probabilities to (...) labels, as `decide` does it with logits."""
        if self._compete:
            most: NDArray[Any] = probabilities.argmax(0).astype(numpy_dtype(dtype))
            return most
        labels = np.zeros(probabilities.shape[1:], numpy_dtype(dtype))
        for probability, value in zip(probabilities, self.regions or (), strict=True):
            labels[probability > 0.5] = value
        return labels

    def background(self, classes: int, shape: Sequence[int]) -> Probabilities:
        """Probabilities (class or region, *shape) where a scan is not looked at."""
        nothing = np.zeros((classes, *shape), np.float32)
        if self._compete:
            nothing[0] = 1
        return nothing

    @property
    def _compete(self) -> bool:
        return self.regions is None or self.folded

    def may_be_foreground(self, logits: Tensor) -> Tensor:
        """(head, ...) logits to a (...) mask; interpolating outside of it gives background only.

        Interpolation with the same weights keeps the order of two heads: where background wins at
        all neighbours it wins in between. In floating point this holds for sums of products and
        for the sign of one head; a lerp of several heads can differ in last-bit ties.
        """
        if self.regions is None:
            return logits[1:].amax(0) > logits[0]
        return (logits > 0).any(0)


# Two classes folded into one head, lesion minus background: the lesion where it is positive.
DIFFERENCE_RULE = LabelRule(regions=(1,), folded=True)


def label_rule(config: ModelConfig) -> LabelRule:
    """The rule of an exported model."""
    return LabelRule(config.region_values)


def is_two_class(rule: LabelRule, heads: int) -> bool:
    """Whether two heads compete, so that `DIFFERENCE_RULE` says the same with one."""
    return rule.regions is None and heads == 2


def label_dtype(config: ModelConfig) -> torch.dtype:
    """uint8; uint16 where nnU-Net writes it, from label 255 on."""
    highest = max(config.region_values or (len(config.labels) - 1,))
    return torch.uint8 if highest < 255 else torch.uint16


def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """NumPy's name of one of torch's types."""
    return torch.empty(0, dtype=dtype).numpy().dtype
