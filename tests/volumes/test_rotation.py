"""volumes.rotation, and the qform that a sheared grid gets: as ITK and nibabel read it."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.quaternions import mat2quat

from volumes import nifti
from volumes.grid import LPS, Grid
from volumes.rotation import quaternion, upright

HALF_TURNS = [np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1]), np.eye(3)]


def rotations() -> list[Any]:
    random = np.random.default_rng(0).normal(size=(20, 3, 3))
    turned = [upright(matrix) for matrix in random]
    return [*HALF_TURNS, *(matrix * np.linalg.det(matrix) for matrix in turned)]


@pytest.mark.parametrize("rotation", rotations())
def test_a_quaternion_is_nibabels(rotation: Any) -> None:
    expected = mat2quat(rotation)
    found = quaternion(rotation)
    sign = np.sign(expected @ found)  # either will do for half a turn
    assert found == pytest.approx(expected * sign, abs=1e-12)
    assert found[0] >= 0


@pytest.mark.parametrize("mirror", [1, -1])
def test_a_sheared_grid_is_upright_for_itk_and_sheared_for_nibabel(
    mirror: int, tmp_path: Path
) -> None:
    axes = upright(np.array([[0.9, 0.1, 0.3], [-0.2, 1.0, 0.1], [0.1, 0.2, mirror]]))
    affine = np.eye(4)
    affine[:3, :3] = axes * (0.7, 0.8, 3.0)
    affine[:3, 2] += 0.9 * axes[:, 1]
    affine[:3, 3] = 10, -20, 30
    grid = Grid.of_affine((4, 5, 6), affine)
    voxels = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
    nifti.write(tmp_path / "a.nii", nifti.header_of(grid), voxels.dtype, [voxels])
    scan: Any = nibabel.load(tmp_path / "a.nii")
    assert scan.affine == pytest.approx(affine, abs=1e-5)
    itk = sitk.ReadImage(tmp_path / "a.nii")
    assert np.array_equal(sitk.GetArrayFromImage(itk), voxels)
    lps = LPS[:3, :3] @ axes
    assert itk.GetDirection() == pytest.approx(lps.ravel().tolist(), abs=1e-6)
    assert itk.GetOrigin() == pytest.approx((-10, 20, 30), abs=1e-5)
    assert itk.GetSpacing() == pytest.approx(grid.spacing_zyx[::-1], abs=1e-6)


def test_a_grid_that_is_not_sheared_has_a_sform_alone() -> None:
    grid = Grid.of_affine((4, 5, 6), np.diag([0.7, 0.8, 3.0, 1.0]))
    assert nifti.header_of(grid).fields["qform_code"] == 0
