from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.sizes.scans import geometry, interpolate, make_scan, slice_spacing_mm
from tests.nnunet_models import write_scan


@pytest.mark.parametrize(
    ("slices", "expected_mm"),
    [(8, 5.0), (100, 5.0), (101, 2.5), (119, 2.5), (299, 2.5), (300, 1.0), (1500, 1.0)],
)
def test_spacing_rule(slices: int, expected_mm: float) -> None:
    assert slice_spacing_mm(slices) == expected_mm


def test_interpolates_from_the_first_slice_to_the_last() -> None:
    voxels = np.array([-1000, 0, 3000], np.int16)[:, None, None] * np.ones((1, 2, 3), np.int16)
    made = interpolate(voxels, 5)
    assert made.dtype == np.int16
    assert made[:, 1, 2].tolist() == [-1000, -500, 0, 1500, 3000]
    assert np.array_equal(interpolate(voxels, 3), voxels)
    assert interpolate(voxels, 2)[:, 0, 0].tolist() == [-1000, 3000]


def test_a_scan_is_alone_in_its_folder(tmp_path: Path) -> None:
    voxels = np.arange(4 * 6 * 7).reshape(4, 6, 7)
    source = write_scan(tmp_path / "real_0000.nii.gz", voxels, (3.0, 0.5, 0.625))
    file = make_scan(source, 130, tmp_path / "scans")
    assert [f.name for f in file.parent.iterdir()] == ["real-130_0000.nii.gz"]
    shape, spacing = geometry(file)
    assert tuple(shape) == (130, 6, 7)
    assert spacing == pytest.approx((2.5, 0.8, 0.8))
    made, scan = sitk.ReadImage(str(file)), sitk.ReadImage(str(source))
    assert made.GetPixelID() == sitk.sitkInt16
    assert made.GetDirection() == scan.GetDirection()
    assert made.GetOrigin() == pytest.approx(scan.GetOrigin())
    first = file.stat().st_mtime_ns
    assert make_scan(source, 130, tmp_path / "scans").stat().st_mtime_ns == first
