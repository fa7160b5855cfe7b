import numpy as np
import pytest

from evaluation.metrics import dice


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
