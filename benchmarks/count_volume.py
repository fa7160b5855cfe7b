"""The sum of importance maps over all windows as nnU-Net keeps it: a volume as large as the scan.

Stands in for the two factors that the app computes instead, in `benchmarks.shortcuts`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from app.sliding_window import importance_map, windows


def sums_of_weights(
    shape: Sequence[int], patch_size: Sequence[int], step_size: float, passes: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """The volume (z, y, x), and 1 in place of the factor of a plane; see app.sliding_window."""
    total = like.new_zeros(tuple(shape))
    weights = importance_map(patch_size, torch.float32).to(like)
    for window in windows(shape, patch_size, step_size):
        total[window] += weights
    return total * passes, total.new_ones(())
