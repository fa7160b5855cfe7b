from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.scoring.assess import Accuracy, assess, check, reference_of
from evaluation.states import State
from evaluation.volumes import read_grid
from tests.evaluation import challenges
from tests.submissions import AFFINE, BEHAVIOURS, lesion, save

VOXEL_ML = 0.8 * 0.8 * 2.5 / 1000

FLARE23, FLARE24 = challenges.FLARE23.scoring, challenges.FLARE24.scoring


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    return tmp_path / "mask.nii.gz"


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    save(tmp_path / "r.nii.gz", lesion())
    return tmp_path / "r.nii.gz"


def assessed(mask: Path | None, reference: Path) -> tuple[State, str, Accuracy]:
    return assess(mask, reference, read_grid(reference), FLARE24)


def test_a_sound_mask_is_scored(mask: Path, reference: Path) -> None:
    predicted = lesion()
    predicted[16:20, 12:14, 6:8] = 0  # the smaller lesion is missed
    predicted[0, 0, 0] = 1  # and one voxel is made up
    save(mask, predicted)
    state, message, accuracy = assessed(mask, reference)
    assert (state, message) == (State.OK, "")
    assert accuracy.dsc == round(2 * 60 / (61 + 76), 4)
    assert 0 < accuracy.nsd < 1
    assert accuracy.lesion_count == 2
    assert accuracy.lesion_sensitivity == accuracy.lesion_precision == accuracy.lesion_f1 == 0.5
    for name, voxels in (("reference", 76), ("predicted", 61)):
        assert getattr(accuracy, f"{name}_ml") == pytest.approx(voxels * VOXEL_ML)
    wrong_ml = accuracy.false_positive_ml, accuracy.false_negative_ml
    assert wrong_ml == pytest.approx((VOXEL_ML, 16 * VOXEL_ML))
    assert accuracy.classes == {"Lesion": (accuracy.dsc, accuracy.nsd)}


@pytest.mark.parametrize("healthy", [False, True])
def test_what_is_missing_is_never_right(reference: Path, healthy: bool) -> None:
    """Even where there is no lesion to be found, and an empty mask would score 1."""
    save(reference, lesion() * (not healthy))
    state, _, accuracy = assessed(None, reference)
    assert state is State.NO_OUTPUT
    assert accuracy.dsc == accuracy.nsd == 0.0
    assert accuracy.lesion_f1 == accuracy.lesion_precision == 0.0
    assert accuracy.lesion_sensitivity == (None if healthy else 0.0)
    assert accuracy.predicted_ml is accuracy.false_positive_ml is None, "nobody knows"
    assert accuracy.false_negative_ml == pytest.approx(0 if healthy else 76 * VOXEL_ML)


def test_an_empty_mask_of_a_healthy_scan_is_right(reference: Path) -> None:
    save(reference, lesion() * 0)
    _, _, accuracy = assessed(reference, reference)
    assert accuracy.dsc == accuracy.nsd == 1.0
    assert accuracy.lesion_f1 is None


BAD = {name: one for name, one in BEHAVIOURS.items() if one.state == "bad_output" and one.make}


@pytest.mark.parametrize("name", BAD)
def test_masks_that_a_challenge_refuses_are_refused(mask: Path, reference: Path, name: str) -> None:
    make = BAD[name].make
    assert make is not None
    make(mask)
    state, message, accuracy = assessed(mask, reference)
    assert state is State.BAD_OUTPUT
    assert message.count("mask.nii.gz") == 1
    assert BAD[name].says in message
    assert "\n" not in message
    assert accuracy.dsc == accuracy.nsd == 0.0


@pytest.mark.parametrize("name", ["float", "trailing"])
def test_unusual_masks_are_scored_with_a_remark(mask: Path, reference: Path, name: str) -> None:
    make = BEHAVIOURS[name].make
    assert make is not None
    make(mask)
    state, message, accuracy = assessed(mask, reference)
    assert (state, message) == (State.OK, BEHAVIOURS[name].says)
    assert accuracy.dsc == accuracy.nsd == accuracy.lesion_f1 == 1.0


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32])
def test_any_whole_numbers_will_do(mask: Path, dtype: type) -> None:
    save(mask, lesion().astype(dtype))
    assert np.array_equal(check(mask, read_grid(mask), FLARE24).voxels_zyx, lesion().T)


def test_negative_labels_are_refused(mask: Path) -> None:
    save(mask, -lesion().astype(np.int16))
    with pytest.raises(EvaluationError, match="labels from -1 to 0; allowed are 0 to 1"):
        check(mask, read_grid(mask), FLARE24)


def test_a_wrong_header_is_refused_before_its_voxels_are_read(mask: Path, reference: Path) -> None:
    save(mask, np.zeros((600, 600, 600), np.uint8), AFFINE)
    mask.write_bytes(mask.read_bytes()[:2000])  # only its header can be decompressed
    with pytest.raises(EvaluationError, match=r"its size is \(600, 600, 600\)"):
        check(mask, read_grid(reference), FLARE24)


def test_a_reference_with_other_labels_is_named(reference: Path) -> None:
    save(reference, lesion() * 14)
    assert reference_of(reference, FLARE23).voxels_zyx.max() == 14
    with pytest.raises(EvaluationError, match=r"r\.nii\.gz: holds labels from 0 to 14; allowed"):
        reference_of(reference, FLARE24)
