from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from tests.nnunet_models import smooth_noise, write_scan
from tests.training.tiny import SHAPE, SPACING, write_case
from training.cases import Case, find
from training.checks import check, check_all

Spacing = tuple[float, float, float]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A sound case; its files may be overwritten."""
    write_case(tmp_path, "a")
    (found,) = find(tmp_path).cases
    return found


def rewrite_mask(case: Case, voxels: NDArray[Any], dtype: type = np.uint8) -> None:
    assert case.mask is not None
    write_scan(case.mask, voxels, SPACING, dtype)


def lesions() -> NDArray[Any]:
    voxels = np.zeros(SHAPE, np.float64)
    voxels[6:14, 12:28, 12:28] = 1
    return voxels


def only_problem(case: Case) -> str:
    (problem,) = check(case).problems
    assert "\n" not in problem
    return problem


def test_a_sound_case(case: Case) -> None:
    checked = check(case)
    assert checked.problems == ()
    assert checked.stored_as_integers
    assert checked.lesion_ml == pytest.approx(8 * 16 * 16 * 12 / 1000)


def test_both_ways_of_checking_agree(case: Case) -> None:
    assert list(check_all([case, case], 1)) == list(check_all([case, case], 2))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("spacing", lambda image: image.SetSpacing((2.0, 2.0, 3.1))),
        ("origin", lambda image: image.SetOrigin((12.5, -30.25, 101.0))),
        ("direction", lambda image: image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))),
    ],
)
def test_a_mask_off_the_grid(what: str, change: object, case: Case) -> None:
    assert callable(change)
    assert case.mask is not None
    image = sitk.ReadImage(case.mask)
    change(image)
    sitk.WriteImage(image, case.mask)
    assert f"is not on its scan's grid: its {what} is" in only_problem(case)


def test_a_mask_of_another_size(case: Case) -> None:
    rewrite_mask(case, lesions()[:-1])
    assert "its size is (40, 40, 19) voxels (x, y, z), the scan's is (40, 40, 20)" in only_problem(
        case
    )


def test_rounding_in_a_header_is_no_other_grid(case: Case) -> None:
    assert case.mask is not None
    image = sitk.ReadImage(case.mask)
    image.SetOrigin(tuple(value + 1e-5 for value in image.GetOrigin()))
    sitk.WriteImage(image, case.mask)
    assert check(case).problems == ()


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        (2, np.uint8, "holds 2;"),
        (255, np.uint8, "holds 255;"),
        (0.5, np.float32, "holds 0.5;"),
        (-1, np.int16, "holds -1;"),
    ],
)
def test_labels_out_of_range(value: float, dtype: type, shown: str, case: Case) -> None:
    voxels = lesions()
    voxels[0, 0, 0] = value
    rewrite_mask(case, voxels, dtype)
    assert shown in only_problem(case)


def test_many_wrong_labels_are_not_all_listed(case: Case) -> None:
    rewrite_mask(case, lesions() * smooth_noise(SHAPE, 3), np.float32)
    assert only_problem(case).count(",") == 4


def test_whole_numbers_stored_as_floats_will_do(case: Case) -> None:
    rewrite_mask(case, lesions(), np.float32)
    checked = check(case)
    assert checked.problems == ()
    assert not checked.stored_as_integers


def test_background_alone_in_a_labelled_set(case: Case) -> None:
    rewrite_mask(case, np.zeros(SHAPE))
    assert "is background alone" in only_problem(case)
    healthy = Case(case.name, case.scan, case.mask, healthy=True)
    assert check(healthy).problems == ()


def test_a_lesion_in_a_healthy_case(case: Case) -> None:
    healthy = Case(case.name, case.scan, case.mask, healthy=True)
    assert "holds 2048 lesion voxels, but the case is declared healthy" in only_problem(healthy)
    assert check(Case(case.name, case.scan, None, healthy=True)).problems == ()


@pytest.mark.parametrize(
    ("spacing", "unit"),
    [
        ((0.3, 0.08, 0.08), "is it in cm?"),
        ((0.003, 0.002, 0.002), "is it in m?"),
        ((3000.0, 2000.0, 2000.0), "no person's"),
        ((90.0, 1.0, 1.0), "no CT of a person; Write"),
    ],
)
def test_spacing_in_the_wrong_unit(spacing: Spacing, unit: str, tmp_path: Path) -> None:
    shape = (100, 200, 200) if spacing[0] == 0.3 else SHAPE
    scan = write_scan(tmp_path / "a_0000.nii.gz", np.zeros(shape), spacing)
    problem = only_problem(Case("a", scan, None, healthy=True))
    assert unit in problem
    assert re.search("[Ww]rite its (true )?spacing in mm", problem)


def test_a_crop_may_be_smaller_than_any_ct_of_a_person(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a_0000.nii.gz", np.zeros((10, 20, 20)), SPACING)
    assert "no CT of a person" in only_problem(Case("a", scan, None, healthy=True))
    assert not check(Case("a", scan, None, healthy=True, crop_of="b")).problems


def test_one_slice_is_no_volume(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a_0000.nii.gz", np.zeros((1, 40, 40)), SPACING)
    assert "expected a volume" in only_problem(Case("a", scan, None, healthy=True))


def test_files_that_cannot_be_read(case: Case) -> None:
    assert case.mask is not None
    for file in (case.scan, case.mask):
        whole = file.read_bytes()
        for content in (
            b"",
            b"no image",
            whole[: len(whole) // 2],
            gzip.compress(gzip.decompress(whole)[:1000]),
        ):
            file.write_bytes(content)
            assert str(file) in only_problem(case)
        file.write_bytes(whole)
    assert check(case).problems == ()


def test_a_header_that_nnunets_reader_refuses(case: Case) -> None:
    scan: Any = nibabel.load(case.scan)
    affine = scan.affine.copy()
    affine[0, 1] = 0.9  # sheared
    header = scan.header.copy()
    header.set_sform(affine, 1)
    header.set_qform(None, 0)
    nibabel.save(nibabel.Nifti1Image(np.asarray(scan.dataobj), None, header), case.scan)
    assert "nnU-Net's reader refuses it" in only_problem(case)


def test_all_that_is_wrong_with_a_case_is_said(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "a_0000.nii.gz", np.zeros(SHAPE), (90.0, 1.0, 1.0))
    mask = write_scan(tmp_path / "a.nii.gz", np.full(SHAPE, 3), SPACING)
    assert len(check(Case("a", scan, mask)).problems) == 3


def test_a_case_in_metres_is_one_in_mm(case: Case) -> None:
    """As nnU-Net's reader has it."""
    assert case.mask is not None
    for file in (case.scan, case.mask):
        image: Any = nibabel.load(file)
        affine = np.diag([0.001, 0.001, 0.001, 1]) @ image.affine
        metres = nibabel.Nifti1Image(np.asarray(image.dataobj), affine)
        metres.header.set_xyzt_units("meter")
        nibabel.save(metres, file)
    checked = check(case)
    assert checked.problems == ()
    assert sitk.ReadImage(case.scan).GetSpacing() == pytest.approx(SPACING[::-1])
