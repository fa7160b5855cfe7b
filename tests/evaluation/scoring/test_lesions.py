import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from evaluation.scoring import lesions
from evaluation.scoring.lesions import Detection, Lesion, detect, healthy_false_positive_rate
from evaluation.scoring.metrics import dice

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


def one_by_one(prediction: Mask, reference: Mask) -> Detection:
    """The definitions, component by component, with another library's components."""

    def components(of: Mask) -> list[Mask]:
        labels, count = ndimage.label(of, np.ones((3, 3, 3)))
        return [labels == i + 1 for i in range(count)]

    def described(component: Mask, agreement: float) -> Lesion:
        where = np.argwhere(component)
        low, high = where.min(axis=0).tolist(), (where.max(axis=0) + 1).tolist()
        volume_ml = component.sum() * VOXEL_ML
        return Lesion((low[0], low[1], low[2]), (high[0], high[1], high[2]), volume_ml, agreement)

    predicted, expected = components(prediction), components(reference)
    described_lesions = []
    for lesion in expected:
        touching = [p for p in predicted if (p & lesion).any()]
        union = np.logical_or.reduce([np.zeros(SHAPE, np.bool_), *touching])
        described_lesions.append(described(lesion, dice(union, lesion)))
    false = [described(p, 0.0) for p in predicted if not (p & reference).any()]
    missed = [lesion for lesion in described_lesions if lesion.dice == 0]
    return Detection(
        reference_lesions=len(expected),
        detected_lesions=len(expected) - len(missed),
        predicted_lesions=len(predicted),
        false_positives=len(false),
        false_positive_ml=sum(lesion.volume_ml for lesion in false),
        false_negative_ml=sum(lesion.volume_ml for lesion in missed),
        worst_lesions=tuple(sorted(described_lesions, key=lambda one: (one.dice, -one.volume_ml))),
        worst_false_positives=tuple(sorted(false, key=lambda one: -one.volume_ml)),
    )


def comparable(detection: Detection) -> tuple[object, ...]:
    """Every field, rounded, with equally bad lesions in one order."""

    def listed(described: tuple[Lesion, ...]) -> list[tuple[object, ...]]:
        order = [(round(one.dice, 9), -round(one.volume_ml, 9)) for one in described]
        assert order == sorted(order)
        return sorted(
            (*key, one.low_zyx, one.high_zyx) for key, one in zip(order, described, strict=True)
        )

    return (
        detection.reference_lesions,
        detection.detected_lesions,
        detection.predicted_lesions,
        detection.false_positives,
        round(detection.false_positive_ml, 9),
        round(detection.false_negative_ml, 9),
        listed(detection.worst_lesions),
        listed(detection.worst_false_positives),
    )


def test_random_masks_against_the_definitions() -> None:
    merged = split = 0
    for seed in range(60):
        prediction, reference = random_pair(seed)
        found = detect(prediction, reference, SPACING)
        assert comparable(found) == comparable(one_by_one(prediction, reference)), f"seed {seed}"
        true = found.predicted_lesions - found.false_positives
        merged += true < found.detected_lesions
        split += true > found.detected_lesions
    assert merged
    assert split


def test_one_predicted_lesion_across_two() -> None:
    reference = mask((3, 3, slice(1, 4)), (3, 3, slice(6, 9)), (10, 10, 10))
    found = detect(mask((3, 3, slice(3, 7))), reference, SPACING)
    assert (found.reference_lesions, found.detected_lesions) == (3, 2)
    assert (found.predicted_lesions, found.false_positives) == (1, 0)
    assert found.sensitivity == pytest.approx(2 / 3)
    assert found.precision == 1.0
    assert found.f1 == pytest.approx(2 * (2 / 3) / (2 / 3 + 1))
    assert [lesion.dice for lesion in found.worst_lesions] == pytest.approx([0, 2 / 7, 2 / 7])


def test_two_predicted_lesions_on_one() -> None:
    prediction = mask((3, 3, slice(0, 3)), (3, 3, slice(5, 8)), (10, 10, slice(9, 11)))
    found = detect(prediction, mask((3, 3, slice(1, 7))), SPACING)
    assert (found.reference_lesions, found.detected_lesions) == (1, 1)
    assert (found.predicted_lesions, found.false_positives) == (3, 1)
    assert found.sensitivity == 1.0
    assert found.precision == pytest.approx(2 / 3)
    assert found.false_positive_ml == pytest.approx(2 * VOXEL_ML)
    assert found.false_negative_ml == 0.0
    assert found.worst_lesions[0].dice == pytest.approx(2 * 4 / (6 + 6))
    (false,) = found.worst_false_positives
    assert (false.low_zyx, false.high_zyx, false.dice) == ((10, 10, 9), (11, 11, 11), 0.0)


def test_voxels_that_share_a_corner_are_one_lesion() -> None:
    corner = mask((1, 1, 1), (2, 2, 2))
    assert detect(corner, corner, SPACING).reference_lesions == 1
    assert detect(corner, mask((1, 1, 1), (3, 2, 2)), SPACING).reference_lesions == 2


def test_touching_is_not_overlapping() -> None:
    found = detect(mask((3, 3, slice(0, 3))), mask((3, 3, slice(3, 6))), SPACING)
    assert (found.detected_lesions, found.false_positives) == (0, 1)
    assert (found.sensitivity, found.precision, found.f1) == (0.0, 0.0, 0.0)
    assert found.false_positive_ml == found.false_negative_ml == pytest.approx(3 * VOXEL_ML)


def test_ratios_without_a_denominator_are_none() -> None:
    nothing, lesion = mask(), mask((1, 2, 3))
    empty = detect(nothing, nothing, SPACING)
    assert (empty.sensitivity, empty.precision, empty.f1) == (None, None, None)
    assert empty.worst_lesions == empty.worst_false_positives == ()
    healthy = detect(lesion, nothing, SPACING)
    assert (healthy.sensitivity, healthy.precision, healthy.f1) == (None, 0.0, 0.0)
    blind = detect(nothing, lesion, SPACING)
    assert (blind.sensitivity, blind.precision, blind.f1) == (0.0, None, 0.0)


def test_the_largest_missed_lesion_is_the_worst() -> None:
    reference = mask((0, 0, slice(0, 2)), (3, 3, slice(0, 9)), (6, 6, 6), (9, slice(4, 9), 15))
    found = detect(mask((3, 3, 0), (6, 6, 6)), reference, SPACING)
    assert [lesion.volume_ml for lesion in found.worst_lesions] == pytest.approx(
        [5 * VOXEL_ML, 2 * VOXEL_ML, 9 * VOXEL_ML, VOXEL_ML]
    )
    worst = found.worst_lesions[0]
    assert (worst.low_zyx, worst.high_zyx, worst.dice) == ((9, 4, 15), (10, 9, 16), 0.0)


def test_descriptions_are_bounded_and_counts_are_not() -> None:
    grid = np.zeros((20, 20, 20), np.bool_)
    grid[::2, ::2, ::2] = True
    empty = np.zeros_like(grid)
    missed, false = detect(empty, grid, SPACING), detect(grid, empty, SPACING)
    assert missed.reference_lesions == false.false_positives == 1000
    assert len(missed.worst_lesions) == len(false.worst_false_positives) == lesions.LISTED


def test_pairs_are_added_up_over_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [random_pair(seed) for seed in range(20)]
    expected = [detect(*pair, SPACING) for pair in pairs]
    for voxels in (1, 500):
        monkeypatch.setattr(lesions, "SLAB_VOXELS", voxels)
        assert [detect(*pair, SPACING) for pair in pairs] == expected


def test_a_dense_pair_needs_little_more_than_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesions, "SLAB_VOXELS", 2**14)
    dense = np.ones((64, 128, 128), np.bool_)
    tracemalloc.start()
    found = detect(dense, dense, SPACING)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (lesion,) = found.worst_lesions
    assert (lesion.low_zyx, lesion.high_zyx, lesion.dice) == ((0, 0, 0), dense.shape, 1.0)
    # Two arrays of labels with up to 4 bytes a voxel, and a copy of a mask.
    assert peak_bytes < 10 * dense.size


@pytest.mark.parametrize("turned", [np.asfortranarray, lambda m: m[::-1, ::-1].copy()[::-1, ::-1]])
def test_layouts_and_types(turned: object) -> None:
    assert callable(turned)
    for seed in range(5):
        prediction, reference = random_pair(seed)
        expected = detect(prediction, reference, SPACING)
        assert detect(turned(prediction), turned(reference), SPACING) == expected
        assert detect(prediction * np.uint8(255), reference * np.int16(-256), SPACING) == expected


def test_impossible_arguments_are_named() -> None:
    one = mask((1, 1, 1))
    with pytest.raises(ValueError, match="they must be equal"):
        detect(one[:1], one, SPACING)
    with pytest.raises(ValueError, match="3 axes"):
        detect(one[0], one[0], SPACING)
    with pytest.raises(ValueError, match="spacing_zyx"):
        detect(one, one, (1, 1, 0))


def test_false_positives_among_healthy_cases() -> None:
    assert healthy_false_positive_rate([0, 2, 0, 0], [1, 3, 0, 0.5]) == pytest.approx(2 / 3)
    assert healthy_false_positive_rate([0, 0], [0, 0]) == 0.0
    assert healthy_false_positive_rate([1, 2], [0, 5]) is None
    assert healthy_false_positive_rate([], []) is None
    with pytest.raises(ValueError, match="shorter"):
        healthy_false_positive_rate([0, 0], [1])
