import tracemalloc
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.scoring import lesions
from evaluation.scoring.lesions import Detection, detect, worst_lesion
from evaluation.scoring.metrics import dice
from evaluation.scoring.rules import Connectivity

Mask = NDArray[np.bool_]
SHAPE = (12, 14, 16)
SPACING = (5.0, 2.0, 1.0)
VOXEL_ML = 0.01


def mask(*boxes: tuple[slice | int, slice | int, slice | int]) -> Mask:
    made = np.zeros(SHAPE, np.bool_)
    for box in boxes:
        made[box] = True
    return made


def random_pair(seed: int) -> tuple[Mask, Mask]:
    random = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(random.standard_normal((2, *SHAPE)), (0, 1, 1, 1))
    fields[1] = 0.4 * fields[0] + 0.6 * fields[1]
    share = random.uniform(0.0, 0.2, 2)
    first, second = (f > np.quantile(f, 1 - s) for f, s in zip(fields, share, strict=True))
    return first, second


def one_by_one(
    prediction: Mask, reference: Mask
) -> tuple[tuple[float, ...], list[tuple[float, int]]]:
    """A Detection's fields by the definitions and scipy, and Dice and -size of each lesion."""

    def components(of: Mask) -> list[Mask]:
        labels, count = ndimage.label(of, np.ones((3, 3, 3)))
        return [labels == i + 1 for i in range(count)]

    predicted, expected = components(prediction), components(reference)
    found = []
    for lesion in expected:
        touching = [p for p in predicted if (p & lesion).any()]
        union = np.logical_or.reduce([np.zeros(SHAPE, np.bool_), *touching])
        found.append((dice(union, lesion), -int(lesion.sum())))
    false = [p for p in predicted if not (p & reference).any()]
    missed = [-size for agreement, size in found if agreement == 0]
    counts = len(expected), len(expected) - len(missed), len(predicted), len(false)
    return (*counts, sum(p.sum() for p in false) * VOXEL_ML, sum(missed) * VOXEL_ML), sorted(found)


def test_random_masks_against_the_definitions() -> None:
    merged = split = 0
    for seed in range(60):
        prediction, reference = random_pair(seed)
        found = detect(prediction, reference, SPACING)
        expected, listed = one_by_one(prediction, reference)
        assert astuple(found) == pytest.approx(expected), f"seed {seed}"
        true = found.predicted_lesions - found.false_positives
        merged += true < found.detected_lesions
        split += true > found.detected_lesions
        if listed:
            worst, count = worst_lesion(prediction, reference, SPACING)
            assert count == len(listed)
            assert (worst.dice, -worst.volume_ml / VOXEL_ML) == pytest.approx(listed[0])
    assert merged
    assert split


def test_small_masks_have_as_many_lesions_as_scipy_finds() -> None:
    """Thin ones above all: two voxels with one between them, along each axis."""
    random = np.random.default_rng(0)
    gaps = [np.array([1, 0, 1], np.bool_).reshape(s) for s in ((1, 1, 3), (1, 3, 1), (3, 1, 1))]
    drawn = [
        random.random(random.integers(1, 13, 3)) < random.choice([0.001, 0.01, 0.1, 0.5, 0.9])
        for _ in range(3000)
    ]
    for one in (*gaps, *drawn):
        _, count = ndimage.label(one, np.ones((3, 3, 3)))
        found = detect(one, np.zeros_like(one), SPACING)
        assert (found.predicted_lesions, found.false_positives) == (count, count)


def test_one_predicted_lesion_across_two_and_two_on_one() -> None:
    two = mask((3, 3, slice(1, 4)), (3, 3, slice(6, 9)), (10, 10, 10))
    across = mask((3, 3, slice(3, 7)))
    assert detect(across, two, SPACING) == Detection(3, 2, 1, 0, 0.0, VOXEL_ML)
    on_one = mask((3, 3, slice(0, 3)), (3, 3, slice(5, 8)), (10, 10, slice(9, 11)))
    one = mask((3, 3, slice(1, 7)))
    assert detect(on_one, one, SPACING) == Detection(1, 1, 3, 1, 2 * VOXEL_ML, 0.0)


def test_touching_is_not_overlapping() -> None:
    found = detect(mask((3, 3, slice(0, 3))), mask((3, 3, slice(3, 6))), SPACING)
    assert found == Detection(1, 0, 1, 1, 3 * VOXEL_ML, 3 * VOXEL_ML)


@pytest.mark.parametrize(
    ("counts", "ratios"),
    [
        ((3, 2, 1, 0), (2 / 3, 1.0, 2 * (2 / 3) / (2 / 3 + 1))),
        ((1, 1, 3, 1), (1.0, 2 / 3, 2 * (2 / 3) / (2 / 3 + 1))),
        ((1, 0, 1, 1), (0.0, 0.0, 0.0)),
        ((0, 0, 0, 0), (None, None, None)),
        ((0, 0, 1, 1), (None, 0.0, 0.0)),
        ((1, 0, 0, 0), (0.0, None, 0.0)),
    ],
)
def test_ratios_of_counts(
    counts: tuple[int, int, int, int], ratios: tuple[float | None, ...]
) -> None:
    """Lesions, found, predicted, false; a ratio without a denominator is None."""
    found = Detection(*counts, 0.0, 0.0)
    assert (found.sensitivity, found.precision, found.f1) == pytest.approx(ratios)


def test_voxels_that_share_a_corner_are_one_lesion() -> None:
    corner = mask((1, 1, 1), (2, 2, 2))
    assert detect(corner, corner, SPACING).reference_lesions == 1
    assert detect(corner, mask((1, 1, 1), (3, 2, 2)), SPACING).reference_lesions == 2


@pytest.mark.parametrize(
    ("other", "lesions"), [((1, 1, 2), 111), ((1, 2, 2), 211), ((2, 2, 2), 221)]
)
def test_connectivity_is_by_faces_edges_or_corners(
    other: tuple[int, int, int], lesions: int
) -> None:
    """Digits of `lesions`: how many two voxels are by connectivity 6, 18 and 26."""
    two = mask((1, 1, 1), other)
    every: tuple[Connectivity, ...] = (6, 18, 26)
    found = [detect(two, two, SPACING, one).reference_lesions for one in every]
    assert found == [int(digit) for digit in str(lesions)]


def test_the_worst_lesion_is_the_largest_missed_one_and_else_has_the_lowest_dice() -> None:
    reference = mask((0, 0, slice(0, 2)), (3, 3, slice(0, 9)), (6, 6, 6), (9, slice(4, 9), 15))
    missed, count = worst_lesion(mask((3, 3, 0), (6, 6, 6)), reference, SPACING)
    assert count == 4
    assert missed.box == (slice(9, 10), slice(4, 9), slice(15, 16))
    assert missed.inside.all()
    assert (missed.volume_ml, missed.dice) == pytest.approx((5 * VOXEL_ML, 0))
    everything_else = reference & ~mask((3, 3, slice(1, 9)))
    partly, _ = worst_lesion(everything_else, reference, SPACING)
    assert partly.box[2] == slice(0, 9)
    assert partly.dice == pytest.approx(2 * 1 / (1 + 9))
    two_on_one = mask((3, 3, slice(0, 3)), (3, 3, slice(5, 8)))
    (joined, _) = worst_lesion(two_on_one, mask((3, 3, slice(1, 7))), SPACING)
    assert joined.dice == pytest.approx(2 * 4 / (6 + 6))


def test_of_the_worst_lesion_only_its_own_voxels_are_shown() -> None:
    ring = mask((5, slice(2, 9), slice(2, 9))) & ~mask((5, slice(3, 8), slice(3, 8)))
    worst, count = worst_lesion(mask(), ring | mask((5, 5, 5)), SPACING)
    assert count == 2
    assert np.array_equal(worst.inside[0], ring[5, 2:9, 2:9])


def test_pairs_are_added_up_over_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [random_pair(seed) for seed in range(20)]
    expected = [detect(*pair, SPACING) for pair in pairs]
    for voxels in (1, 500):
        monkeypatch.setattr(lesions, "SLAB_VOXELS", voxels)
        assert [detect(*pair, SPACING) for pair in pairs] == expected


def test_a_dense_pair_needs_little_more_than_its_labels() -> None:
    dense = np.ones((64, 512, 512), np.bool_)
    tracemalloc.start()
    found = detect(dense, dense, SPACING)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.reference_lesions, found.f1) == (1, 1.0)
    # Two arrays of labels with up to 4 bytes a voxel, and a copy of a mask.
    assert peak_bytes < 10 * dense.size


@pytest.mark.parametrize("turned", [np.asfortranarray, lambda m: m[::-1, ::-1].copy()[::-1, ::-1]])
def test_layouts_and_types(turned: Any) -> None:
    for seed in range(5):
        prediction, reference = random_pair(seed)
        expected = detect(prediction, reference, SPACING)
        assert detect(turned(prediction), turned(reference), SPACING) == expected
        assert detect(prediction * np.uint8(255), reference * np.int16(-256), SPACING) == expected


@pytest.mark.parametrize("function", [detect, worst_lesion])
def test_impossible_arguments_are_named(function: Any) -> None:
    one = mask((1, 1, 1))
    with pytest.raises(ValueError, match="they must be equal"):
        function(one[:1], one, SPACING)
    with pytest.raises(ValueError, match="3 axes"):
        function(one[0], one[0], SPACING)
    with pytest.raises(ValueError, match="spacing_zyx"):
        function(one, one, (1, 1, 0))
    with pytest.raises(ValueError, match="no lesion"):
        worst_lesion(one, mask(), SPACING)
