"""What a judge's reader adds: the file's name, values as they are, and a scale in double."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.volumes import lesion_ml, read, read_grid
from tests.volumes.nifti_files import CODES, scan_bytes
from volumes.grid import grid_difference

STORED = (np.arange(60) * 7 % 120).reshape(3, 4, 5)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", CODES)
def test_voxels_keep_their_type(tmp_path: Path, dtype: str, order: str) -> None:
    volume = read(write(tmp_path / "a.nii", scan_bytes(dtype, order=order)))
    assert volume.voxels_zyx.dtype == dtype
    np.testing.assert_array_equal(volume.voxels_zyx, STORED)


@pytest.mark.parametrize("dtype", ["i2", "f4", "f8"])
@pytest.mark.parametrize(("slope", "intercept"), [(2.5, -1024.0), (1.0, -1024.0), (0.5, 0.0)])
def test_scaled_voxels_are_float64(
    tmp_path: Path, dtype: str, slope: float, intercept: float
) -> None:
    data = scan_bytes(dtype, scl_slope=slope, scl_inter=intercept)
    voxels = read(write(tmp_path / "a.nii", data)).voxels_zyx
    np.testing.assert_array_equal(voxels, STORED * slope + intercept)
    assert voxels.dtype == np.float64


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.0, 5.0), (np.nan, 5.0)])
def test_scaling_that_does_nothing_leaves_the_type(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    data = scan_bytes(scl_slope=slope, scl_inter=intercept)
    voxels = read(write(tmp_path / "a.nii", data)).voxels_zyx
    np.testing.assert_array_equal(voxels, STORED)
    assert voxels.dtype == np.int16


def test_what_is_not_finite_survives(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.float32)
    values[:3] = np.nan, np.inf, -np.inf
    voxels = read(write(tmp_path / "a.nii", scan_bytes("f4", values=values))).voxels_zyx
    np.testing.assert_array_equal(voxels.ravel(), values)


@pytest.mark.parametrize("name", ["absent", "damaged", "plane"])
def test_what_is_wrong_names_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.nii.gz"
    if name != "absent":
        write(path, scan_bytes(dim=(2, 5, 4, 1, 1, 1, 1, 1)) if name == "plane" else b"no image")
    for reader in (read, read_grid):
        with pytest.raises(EvaluationError) as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_real_scans_are_read_as_nibabel_reads_them(real_data: Path) -> None:
    paths = sorted((real_data / "ct").glob("*.nii.gz"))
    assert paths
    for path in paths:
        volume, theirs = read(path), nibabel.Nifti1Image.from_filename(path)
        np.testing.assert_array_equal(volume.voxels_zyx.transpose(), np.asarray(theirs.dataobj))
        np.testing.assert_array_equal(volume.grid.affine, theirs.affine)
        assert grid_difference(volume.grid, read_grid(path)) is None


def test_lesion_volume_is_voxels_times_spacing(tmp_path: Path) -> None:
    values = np.zeros(60)
    values[[0, 31]] = 1, 2
    mask = read(write(tmp_path / "a.nii", scan_bytes("u1", values=values)))
    assert lesion_ml(mask) == pytest.approx(2 * 0.8 * 0.9 * 2.5 / 1000)
