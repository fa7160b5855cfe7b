"""Against scipy's components."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from app.largest_component import keep_largest

Labels = NDArray[np.uint8]


def expected(labels: Labels, groups: list[list[int]]) -> Labels:
    labels = labels.copy()
    for group in groups:
        found, count = ndimage.label(np.isin(labels, group), np.ones((3, 3, 3)))
        sizes = np.bincount(found.ravel(), minlength=count + 1)
        largest = np.flatnonzero(sizes == sizes[1:].max(initial=0))
        labels[np.isin(labels, group) & ~np.isin(found, largest)] = 0
    return labels


@pytest.mark.parametrize("groups", [[[1]], [[1, 2, 3]], [[1, 2, 3], [2], [1, 3]], [[3], [3]], []])
def test_small_random_masks(groups: list[list[int]]) -> None:
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(1000):
        shape, density = rng.integers(1, 9, 3), rng.uniform(0.01, 0.6)
        labels = (rng.integers(1, 4, shape) * (rng.random(shape) < density)).astype(np.uint8)
        found = labels.copy()
        keep_largest(found, groups)
        assert np.array_equal(found, expected(labels, groups))
        changed += not np.array_equal(found, labels)
    assert changed > 300 or not groups


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1, 0, 1], [1, 0, 1]),  # of the same size: both stay
        ([1, 0, 1, 1, 0, 2], [0, 0, 1, 1, 0, 2]),
        ([0, 0, 0], [0, 0, 0]),
        ([2, 2, 0, 2], [2, 2, 0, 2]),
    ],
)
@pytest.mark.parametrize("axis", range(3))
def test_a_row_of_voxels(axis: int, before: list[int], after: list[int], dtype: Any) -> None:
    shape = [1, 1, 1]
    shape[axis] = len(before)
    labels = np.array(before, dtype).reshape(shape)
    keep_largest(labels, [[1, 300]])
    assert labels.ravel().tolist() == after


def test_corners_touch_and_other_labels_join() -> None:
    """26 neighbours; in a group of labels the border between two of them is none."""
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[0, 0, 0], labels[1, 1, 1], labels[2, 2, 2] = 1, 2, 1
    labels[4, 4, 0:2] = 1
    together, apart = labels.copy(), labels.copy()
    keep_largest(together, [[1, 2]])
    assert np.argwhere(together).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    keep_largest(apart, [[1]])
    assert np.argwhere(apart).tolist() == [[1, 1, 1], [4, 4, 0], [4, 4, 1]]


def test_a_transposed_mask_is_changed_in_place() -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0, 0, 0], labels[2, 3, 3:] = 1, 1
    keep_largest(labels.transpose(2, 0, 1), [[1]])
    assert np.argwhere(labels).tolist() == [[2, 3, 3], [2, 3, 4]]
