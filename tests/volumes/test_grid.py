"""Grids of NIfTI files whose headers nibabel made, held against each other."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from volumes import nifti
from volumes.grid import Grid, ambiguity, grid_difference, same_spacing

SPACING_ZYX = (5.0, 0.8, 0.7)
# x to the left, y to the back, z to the head; as float32 holds it.
AFFINE = np.array([[-0.7, 0, 0, 146.1], [0, -0.8, 0, -12.3], [0, 0, 5.0, -777.5], [0, 0, 0, 1]])
Form = tuple[NDArray[np.float64], int] | None


def header_bytes(
    shape_zyx: tuple[int, int, int] = (6, 5, 4),
    sform: Form = (AFFINE, 1),
    qform: Form = (AFFINE, 1),
    **fields: Any,
) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape_zyx[::-1])
    header.set_zooms(SPACING_ZYX[::-1])
    for form, set_form in ((sform, header.set_sform), (qform, header.set_qform)):
        if form is not None:
            set_form(form[0], form[1])
    header["vox_offset"] = 352
    for name, value in fields.items():
        header[name] = value
    return bytes(header.binaryblock)


def grid(folder: Path, **given: Any) -> Grid:
    path = folder / "grid.nii"
    path.write_bytes(header_bytes(**given))
    return nifti.read_header(path, strict=True).grid


def test_a_copy_has_the_same_grid(tmp_path: Path) -> None:
    scan = grid(tmp_path)
    copied = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), scan.affine)
    nibabel.save(copied, tmp_path / "copy.nii.gz")  # leaves the qform without a code
    assert grid_difference(scan, nifti.read_header(tmp_path / "copy.nii.gz").grid) is None


def moved(axis: int, to_mm: float) -> NDArray[np.float64]:
    affine = AFFINE.copy()
    affine[axis, 3] = to_mm
    return affine


def test_every_part_of_the_grid_is_compared(tmp_path: Path) -> None:
    scan = grid(tmp_path)
    mask = grid(tmp_path, shape_zyx=(6, 4, 5))
    said = "size is (5, 4, 6) voxels (x, y, z), the scan's is (4, 5, 6)"
    assert grid_difference(scan, mask) == said
    longer = AFFINE.copy()
    longer[:, 2] *= 5.001 / 5.0
    turned = AFFINE * [1, -1, 1, 1]
    sheared = AFFINE.copy()
    sheared[:3, 2] = 0.1, 0, np.sqrt(25 - 0.01)
    for affine, said in (
        (longer, "spacing is (0.7, 0.8, 5.001), the scan's is (0.7, 0.8, 5.0)"),
        (moved(2, -777.4), "origin is (146.1, -12.3, -777.4), the scan's is (146.1, -12.3, "),
        (turned, "direction is (-1.0, 0.0, 0.0, 0.0, 1.0"),
        (sheared, "direction is (-1.0, 0.0, 0.02, "),
    ):
        mask = grid(tmp_path, sform=(affine, 1), qform=None)
        assert str(grid_difference(scan, mask)).startswith(said)
    mask = grid(tmp_path, pixdim=[1, 0.7, 0.8, 5.001, 0, 0, 0, 0])
    assert str(grid_difference(scan, mask)).startswith("spacing is (0.7, 0.8, 5.001)")


def test_rounding_of_a_header_is_no_difference(tmp_path: Path) -> None:
    affine = AFFINE * (1 + 1e-6)
    assert grid_difference(grid(tmp_path), grid(tmp_path, sform=(affine, 1), qform=None)) is None


def test_either_form_of_a_scan_that_has_two_will_do(tmp_path: Path) -> None:
    other = moved(0, 99.0)
    scan = grid(tmp_path, sform=(AFFINE, 1), qform=(other, 1))
    assert grid_difference(scan, grid(tmp_path, sform=(AFFINE, 1), qform=None)) is None
    assert grid_difference(scan, grid(tmp_path, sform=None, qform=(other, 1))) is None
    # FSL's tools write what they followed into both.
    assert grid_difference(scan, grid(tmp_path, sform=(other, 2), qform=(other, 2))) is None
    third = moved(0, 11.0)
    mask = grid(tmp_path, sform=(third, 1), qform=(third, 1))
    assert str(grid_difference(scan, mask)).startswith("origin is (11.0, ")


@pytest.mark.parametrize("step_mm", [5.0002, 5.0, 1.0])
def test_either_reading_will_do_where_pixdim_and_sform_disagree(
    tmp_path: Path, step_mm: float
) -> None:
    """SimpleITK's own mask, and nibabel's, of a scan without a qform."""
    path, voxels = tmp_path / "scan.nii", np.zeros((6, 5, 4), np.int16)
    header = header_bytes(qform=None, pixdim=[1, 0.7, 0.8, step_mm, 0, 0, 0, 0])
    path.write_bytes(header + bytes(4) + voxels.tobytes())
    scan = nifti.read_header(path, strict=True).grid
    assert (ambiguity(scan) is None) == (step_mm == 5.0)
    by_itk: Any = sitk.GetImageFromArray(voxels)
    by_itk.CopyInformation(sitk.ReadImage(path))
    sitk.WriteImage(by_itk, tmp_path / "itk.nii")
    image: Any = nibabel.load(path)
    by_nibabel = nibabel.Nifti1Image(voxels.T, image.affine)
    nibabel.save(by_nibabel, tmp_path / "nibabel.nii")
    nibabel.save(nibabel.Nifti1Image(voxels.T, image.affine, image.header), tmp_path / "copy.nii")
    for name in ("itk", "nibabel", "copy"):
        mask = nifti.read_header(tmp_path / f"{name}.nii", strict=True).grid
        assert grid_difference(scan, mask) is None, name
    sheared = image.affine @ np.diag([1, 1, 1.001, 1])
    nibabel.save(nibabel.Nifti1Image(voxels.T, sheared), tmp_path / "other.nii")
    other = nifti.read_header(tmp_path / "other.nii", strict=True).grid
    assert str(grid_difference(scan, other)).startswith("spacing is (0.7, 0.8, 5.005)")


def test_a_form_without_a_code_does_not_count(tmp_path: Path) -> None:
    scan = grid(tmp_path, sform=(AFFINE, 0), qform=(moved(0, 99.0), 1))
    assert len(scan.affines) == 1
    assert scan.affine[0, 3] == 99.0
    assert str(grid_difference(scan, grid(tmp_path, qform=None))).startswith("origin is (146.1")
    assert str(grid_difference(grid(tmp_path), grid(tmp_path, sform=None, qform=None))) != "None"


def test_a_mask_may_lie_anywhere_where_its_scan_says_nothing(tmp_path: Path) -> None:
    scan = grid(tmp_path, sform=None, qform=None)
    assert scan.affines == ()
    np.testing.assert_allclose(np.abs(np.diag(scan.affine)), [*SPACING_ZYX[::-1], 1], rtol=1e-6)
    assert grid_difference(scan, grid(tmp_path)) is None
    mask = grid(tmp_path, pixdim=[1, 0.7, 0.8, 5.001, 0, 0, 0, 0])
    assert str(grid_difference(scan, mask)).startswith("spacing is (0.7, 0.8, 5.001)")


@pytest.mark.parametrize(("by", "same"), [(5e-5, True), (2e-4, False)])
def test_spacings_are_compared_in_mm(by: float, same: bool) -> None:
    assert same_spacing((2.5, 0.8, 0.8), (2.5, 0.8 + by, 0.8)) is same
