from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.pictures.focus import find_focus, turn_upright
from volumes.grid import Grid

SPACING_ZYX = np.array([5.0, 2.0, 1.0])
Box = tuple[int | slice, int | slice, int | slice]


def masks(**boxes: Box) -> NDArray[np.bool_]:
    mask = np.zeros((20, 20, 20), bool)
    for box in boxes.values():
        mask[box] = True
    return mask


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAS", "SAR", "PIL", "ASL", "IRP"])
def test_any_orientation_is_turned_to_lps(orientation: str) -> None:
    """Against nibabel's own image: its position of every voxel is that of the turned array."""
    codes = nibabel.orientations.axcodes2ornt(tuple(orientation))
    affine = nibabel.orientations.inv_ornt_aff(codes, (2, 3, 4)) @ np.diag([0.5, 2.0, 4.0, 1.0])
    turn = turn_upright(Grid.of_affine((4, 3, 2), affine))
    positions = np.stack(np.meshgrid(*(np.arange(n) for n in (4, 3, 2)), indexing="ij"), axis=-1)
    ras_mm = nibabel.affines.apply_affine(affine, positions[..., ::-1])
    turned = [turn(ras_mm[..., i]) for i in range(3)]
    assert (np.diff(turned[0], axis=2) == -turn.spacing_zyx[2]).all(), "x runs to the left"
    assert (np.diff(turned[1], axis=1) == -turn.spacing_zyx[1]).all(), "y runs to the back"
    assert (np.diff(turned[2], axis=0) == turn.spacing_zyx[0]).all(), "z runs to the head"


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_axes_that_span_no_volume_are_refused(value: float) -> None:
    affine = np.eye(4)
    affine[:3, 1] = value
    with pytest.raises(ValueError, match="the scan's axes span no volume"):
        turn_upright(Grid.of_affine((4, 3, 2), affine))


def test_the_largest_lesion_of_the_reference_is_chosen() -> None:
    predicted = masks(elsewhere=(slice(15, 20), slice(15, 20), slice(15, 20)))
    expected = masks(
        small=(2, 2, 2),
        large=(slice(10, 13), slice(5, 8), slice(14, 16)),
        widest=(11, slice(4, 9), 14),
    )
    focus = find_focus(predicted, expected, SPACING_ZYX)
    assert (focus.slices[0], focus.slices[2]) == (11, 14)
    assert (focus.low.tolist(), focus.high.tolist()) == ([10, 4, 14], [13, 9, 16])
    assert focus.said == "largest of 2 lesions, 0.20 ml"


def test_two_voxels_with_one_between_them_are_two_lesions() -> None:
    expected = np.array([[[1, 0, 1]]], np.bool_)
    focus = find_focus(expected, expected, SPACING_ZYX)
    assert focus.said.startswith("largest of 2 lesions")


def test_lesions_that_meet_at_a_corner_are_one() -> None:
    expected = masks(a=(2, 2, 2), b=(3, 3, 3), c=(9, 9, slice(9, 11)))
    assert find_focus(expected, expected, SPACING_ZYX).low.tolist() == [2, 2, 2]


LARGE: Box = (slice(2, 6), slice(2, 6), slice(2, 6))
SMALL: Box = (slice(10, 12), slice(10, 12), slice(10, 12))
SMALLER: Box = (slice(10, 12), slice(10, 12), slice(16, 17))


@pytest.mark.parametrize(
    ("predicted", "low", "said"),
    [
        (masks(a=LARGE, b=SMALL), (10, 10, 16), "worst of 3 lesions, 0.04 ml, missed"),
        (masks(a=LARGE, b=SMALLER), (10, 10, 10), "worst of 3 lesions, 0.08 ml, missed"),
        (masks(a=LARGE), (10, 10, 10), "worst of 3 lesions, 0.08 ml, missed"),
        (masks(a=SMALL, b=SMALLER), (2, 2, 2), "worst of 3 lesions, 0.64 ml, missed"),
        (
            masks(a=LARGE, b=(slice(10, 12), slice(10, 12), 11), c=SMALLER),
            (10, 10, 10),
            "worst of 3 lesions, 0.08 ml, DSC 66.7 %",
        ),
        (masks(a=LARGE, b=SMALL, c=SMALLER), (2, 2, 2), "worst of 3 lesions, 0.64 ml, DSC 100.0 %"),
    ],
)
def test_the_worst_lesion(
    predicted: NDArray[np.bool_], low: tuple[int, int, int], said: str
) -> None:
    focus = find_focus(predicted, masks(a=LARGE, b=SMALL, c=SMALLER), SPACING_ZYX, "worst")
    assert tuple(focus.low.tolist()) == low
    assert focus.said == said


def test_the_worst_lesion_is_cut_where_it_is_widest_and_no_other_in_its_box() -> None:
    expected = masks(stem=(slice(4, 12), 4, 4), bar=(5, slice(4, 12), 4), post=(9, 9, slice(2, 18)))
    expected |= masks(inside=(slice(8, 12), slice(8, 12), 4))  # which reaches into their box
    focus = find_focus(masks(a=(9, 9, 9)), expected, SPACING_ZYX, "worst")
    assert (focus.low.tolist(), focus.high.tolist()) == ([4, 4, 4], [12, 12, 5])
    assert focus.slices == (5, 4, 4)


@pytest.mark.parametrize(("choice", "said"), [("largest", ""), ("worst", ", DSC 100.0 %")])
def test_one_lesion_is_called_the_only_one(choice: Any, said: str) -> None:
    focus = find_focus(masks(a=LARGE), masks(a=LARGE), SPACING_ZYX, choice)
    assert focus.said == f"the only lesion, 0.64 ml{said}"


@pytest.mark.parametrize("choice", ["largest", "worst"])
def test_without_a_lesion_in_the_reference_the_largest_predicted_one_is_shown(choice: Any) -> None:
    predicted = masks(a=LARGE, b=SMALL)
    focus = find_focus(predicted, masks(), SPACING_ZYX, choice)
    assert focus.low.tolist() == [2, 2, 2]
    assert focus.said == "largest of 2 false positives, 0.64 ml"
    focus = find_focus(predicted, None, SPACING_ZYX, choice)
    assert focus.said == "largest of 2 predicted lesions, 0.64 ml"


@pytest.mark.parametrize("expected", [None, masks()])
@pytest.mark.parametrize("choice", ["largest", "worst"])
def test_without_any_lesion_the_middle_is_shown(
    expected: NDArray[np.bool_] | None, choice: Any
) -> None:
    focus = find_focus(masks(), expected, SPACING_ZYX, choice)
    assert focus.slices == (10, 10, 10)
    assert focus.said == "no lesion: the middle of the scan"
