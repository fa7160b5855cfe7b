"""nnU-Net's postprocessing: of some labels together, only the largest connected component stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.components import connected
from app.crop import box_where
from app.restore import Labels

CONNECTIVITY: Final = 26  # what skimage.measure.label takes for a volume, and so nnU-Net


def keep_largest(labels: Labels, groups: Sequence[Sequence[int]]) -> None:
    """Make background, in place, of what is not in the largest component of each group of labels.

    One group after the other; components of the same size all stay. As nnU-Net 2.8.1's
    remove_all_but_largest_component_from_segmentation.
    """
    for group in groups:
        _keep_largest(labels, group)


def _keep_largest(labels: Labels, group: Sequence[int]) -> None:
    part = labels[box_where(labels.shape, lambda plane: _is_one_of(labels[plane], group))]
    inside = _is_one_of(part, group)
    components, count = connected(inside, CONNECTIVITY)
    sizes = np.zeros(count + 1, np.int64)
    for plane in components:
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    goes = sizes < sizes[1:].max(initial=0)
    goes[0] = False
    for plane, of_voxel in zip(part, components, strict=True):
        plane[goes[of_voxel]] = 0


def _is_one_of(labels: Labels, group: Sequence[int]) -> NDArray[np.bool_]:
    """Where a label is in the group; np.isin takes eight bytes a voxel for it."""
    inside = np.zeros(labels.shape, bool)
    for label in group:
        inside |= labels == label
    return inside
