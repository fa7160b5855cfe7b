"""What position alone scores: the best ellipsoid in the middle of every scan.

Where scans were cropped around their lesions, a model has to be better than this to have seen
anything. Its axes are the scan's sides, less a margin, times a fraction; both are chosen on the
cases that it is scored on, which favours it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volumes import nifti

MARGINS_MM = np.arange(0.0, 51.0, 5.0)  # at each end of a side
FRACTIONS = np.arange(0.30, 1.405, 0.02)
LEAST_SIDE_MM = 10.0  # of a side less its margins


@dataclass(frozen=True)
class Best:
    """The ellipsoid with axes of ``fraction`` x (side - 2 ``margin_mm``), and each case's DSC."""

    margin_mm: float
    fraction: float
    dsc: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean DSC."""
        return float(np.mean(self.dsc))


def best(masks: Sequence[Path]) -> Best:
    """The ellipsoid that has the largest mean DSC on ``masks``, each of which holds a lesion."""
    scores = np.array([_scores(mask) for mask in masks])  # case, margin, fraction
    means = scores.mean(0)
    margin, fraction = np.unravel_index(means.argmax(), means.shape)
    return Best(
        float(MARGINS_MM[margin]),
        round(float(FRACTIONS[fraction]), 2),
        tuple(scores[:, margin, fraction].tolist()),
    )


def _scores(file: Path) -> NDArray[np.float64]:
    """DSC of the ellipsoid of every margin and fraction."""
    header, mask = nifti.read(file)
    lesion, spacing_zyx = mask > 0, np.array(header.spacing)
    centred = [np.arange(n) - (n - 1) / 2 for n in lesion.shape]
    sides = np.array(lesion.shape) * spacing_zyx
    scores = []
    for margin in MARGINS_MM:
        axes = np.maximum(sides - 2 * margin, LEAST_SIDE_MM) / spacing_zyx
        z, y, x = np.ix_(*((c / (axis / 2)) ** 2 for c, axis in zip(centred, axes, strict=True)))
        # A voxel is in every ellipsoid from the first one that holds it.
        first = np.searchsorted(FRACTIONS, np.sqrt(z + y + x))
        count = len(FRACTIONS) + 1
        inside = np.bincount(first.ravel(), minlength=count)[:-1].cumsum()
        hit = np.bincount(first[lesion], minlength=count)[:-1].cumsum()
        scores.append(2 * hit / (inside + lesion.sum()))
    return np.array(scores)
