import numpy as np
import pytest

from evaluation.scoring.metrics import check_shapes, check_spacing, dice


def test_dice_of_overlapping_masks() -> None:
    prediction = np.array([[1, 1, 0], [0, 0, 0]], np.uint8)
    reference = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    assert dice(prediction, reference) == pytest.approx(2 * 1 / (2 + 3))


def test_dice_counts_every_value_but_zero_as_lesion() -> None:
    assert dice(np.array([0, 2, 255], np.uint8), np.array([False, True, True])) == 1.0


@pytest.mark.parametrize(("prediction", "expected"), [(0, 1.0), (1, 0.0)])
def test_dice_against_an_empty_reference(prediction: int, expected: float) -> None:
    assert dice(np.full((2, 3), prediction), np.zeros((2, 3), int)) == expected


def test_dice_refuses_shapes_that_only_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(2, 3\)"):
        dice(np.ones((1, 3), int), np.ones((2, 3), int))


@pytest.mark.parametrize(
    "spacing", [(1, 1), (1, 1, 1, 1), 1.0, (0, 1, 1), (1, -1, 1), (1, 1, np.nan), (np.inf, 1, 1)]
)
def test_an_impossible_spacing_is_shown(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"spacing_zyx is .* three positive numbers \(mm\)"):
        check_spacing(spacing)


def test_a_header_s_float32_spacing_keeps_its_value() -> None:
    spacing = check_spacing(np.array([0.7, 1.0, 5.0], np.float32))
    assert spacing.dtype == np.float64
    assert spacing.tolist() == [float(np.float32(0.7)), 1.0, 5.0]


def test_the_number_of_axes_is_checked_where_it_matters() -> None:
    plane = np.ones((2, 3), int)
    check_shapes(plane, plane)
    with pytest.raises(ValueError, match=r"shape \(2, 3\).* 3 axes"):
        check_shapes(plane, plane, ndim=3)
