"""Against nibabel's io_orientation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, io_orientation

from volumes.grid import Matrix
from volumes.orientation import AS_STORED, Orientation, nearest_ras

STORED = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
TURNS = [
    Orientation(axes, steps)
    for axes in itertools.permutations(range(3))
    for steps in itertools.product((1, -1), repeat=3)
]


def random_affine(rng: np.random.Generator, kind: str) -> Matrix:
    """Along the axes, rotated at random, or sheared."""
    matrix = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    if kind == "rotated":
        matrix = np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.choice([-1, 1], 3)
    if kind == "sheared":
        matrix = matrix + rng.normal(0, 0.3, (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = (matrix @ np.diag(rng.uniform(0.5, 3, 3))).astype(np.float32)
    return affine


@pytest.mark.parametrize("kind", ["along the axes", "rotated", "sheared"])
def test_as_nibabel_turns(kind: str) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(1000):
        affine = random_affine(rng, kind)
        orientation = nearest_ras(affine)
        expected = apply_orientation(STORED.T, io_orientation(affine)).T
        assert np.array_equal(orientation.turned(STORED), expected)
        seen.add(orientation)
    assert len(seen) == len(TURNS)


def test_ras_stays() -> None:
    assert nearest_ras(np.diag([2.0, 3.0, 4.0, 1.0])) == AS_STORED


def test_numbers_that_are_not_finite() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        nearest_ras(np.full((4, 4), np.nan))


@pytest.mark.parametrize("classes", [(), (3,)])
@pytest.mark.parametrize("turn", TURNS)
def test_undone_in_parts(turn: Orientation, classes: tuple[int, ...]) -> None:
    """What keeps its z comes back part by part, all else as a whole; also behind other axes."""
    stored = np.stack([STORED + c for c in range(3)]) if classes else STORED
    there = turn.turned(stored)
    parts = iter([there[..., :1, :, :], there[..., 1:3, :, :], there[..., 3:, :, :]])
    found = list(turn.stored(parts, stored.shape, stored.dtype))
    keeps_z = turn.axes[0] == 0 and turn.steps[0] == 1
    assert [part.shape[-3] for part in found] == ([1, 2, 1] if keeps_z else [4])
    assert np.array_equal(np.concatenate(found, -3), stored)
