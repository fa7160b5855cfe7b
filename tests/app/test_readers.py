"""Models whose scans nnU-Net reads with nibabel: voxels, spacing and masks are nibabel's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

from app.__main__ import main
from app.image import ImageError, read_image
from tests.app.small_model import write_model
from tests.nnunet_models import smooth_noise
from tests.oriented import ORIENTED, SPACING, affine, write_oriented

REORIENT = "NibabelIOWithReorient"
READERS = ("NibabelIO", REORIENT)
SHAPE = (36, 40, 14)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ORIENTED)
def test_voxels_and_spacing_are_nibabel_s(name: str, reader: str, tmp_path: Path) -> None:
    voxels = smooth_noise(SHAPE, seed=0).astype(np.int16)
    file = write_oriented(tmp_path / "scan.nii.gz", name, voxels)
    expected: Any = nibabel.load(file)
    if reader == REORIENT:
        expected = expected.as_reoriented(io_orientation(expected.affine))
    found = read_image(file, reader)
    assert np.array_equal(found.voxels, expected.get_fdata().T)
    assert found.spacing_zyx == tuple(float(step) for step in expected.header.get_zooms()[::-1])


@pytest.mark.parametrize(
    ("slope", "intercept"), [(0.0, -1024.0), (1.0, -1024.0), (0.5, 0.0), (0.1, 3.25), (np.nan, 7)]
)
@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_rescaled_as_by_nibabel(slope: float, intercept: float, dtype: str, tmp_path: Path) -> None:
    """A slope of 0 means: as stored. ITK takes it for 1, and large whole numbers for float32."""
    stored = np.array([[[-1000, 0, 3], [1, 70, 2**24 + 1]]], dtype="int32")
    stored = (stored % 30000 if dtype == "int16" else stored).astype(dtype)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    nibabel.save(image, tmp_path / "scan.nii")
    raw = bytearray((tmp_path / "scan.nii").read_bytes())
    raw[112:120] = np.array([slope, intercept], "<f4").tobytes()
    (tmp_path / "scan.nii").write_bytes(raw)
    by_nibabel: Any = nibabel.load(tmp_path / "scan.nii")
    expected = by_nibabel.get_fdata().astype(np.float32)
    found = read_image(tmp_path / "scan.nii", "NibabelIO").voxels
    assert np.array_equal(found.astype(np.float32), expected.T)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", ORIENTED)
def test_a_mask_does_not_depend_on_how_its_scan_is_stored(
    name: str, exact: bool, tmp_path: Path
) -> None:
    """The same voxels stored in another order have the same mask, and the scan's header."""
    axes = ORIENTED[name][0]
    turned = smooth_noise(SHAPE, seed=1).astype(np.int16)  # in RAS+
    to_stored = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    if name == "neither form":  # nibabel's substitute points to the left
        to_stored = np.array([[0, -1], [1, 1], [2, 1]])
    write_oriented(tmp_path / "one.nii.gz", name, apply_orientation(turned, to_stored))
    spacing = read_image(tmp_path / "one.nii.gz", REORIENT).spacing_zyx[::-1]
    nibabel.save(nibabel.Nifti1Image(turned, affine("RAS", spacing)), tmp_path / "two.nii.gz")
    model = write_model(tmp_path / "model", reader=REORIENT)
    masks: list[Any] = []
    for stored in ("one", "two"):
        arguments = [
            "--input",
            tmp_path / f"{stored}.nii.gz",
            "--output",
            tmp_path / f"m_{stored}.nii.gz",
        ]
        arguments += ["--model", model, "--device", "cpu", *(["--exact"] if exact else [])]
        assert main([str(a) for a in arguments]) == 0
        masks.append(nibabel.load(tmp_path / f"m_{stored}.nii.gz"))
    one, two = (np.asarray(mask.dataobj) for mask in masks)
    assert np.array_equal(one, apply_orientation(two, to_stored))
    assert len(np.unique(one)) == 2
    scan: Any = nibabel.load(tmp_path / "one.nii.gz")
    for field in ("dim", "pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z"):
        assert np.array_equal(scan.header[field], masks[0].header[field])


def test_other_formats_are_turned_too(tmp_path: Path) -> None:
    """nnU-Net's readers know NIfTI alone: MetaImage gets the voxels of the same scan as NIfTI."""
    voxels = smooth_noise(SHAPE, seed=0).astype(np.int16)
    file = write_oriented(tmp_path / "scan.nii.gz", "coronal", voxels)
    sitk.WriteImage(sitk.ReadImage(file), tmp_path / "scan.mha")
    one, two = (read_image(tmp_path / f"scan{s}", REORIENT) for s in (".nii.gz", ".mha"))
    assert np.array_equal(one.voxels, two.voxels)
    assert one.spacing_zyx == pytest.approx(two.spacing_zyx)
    assert sorted(one.spacing_zyx) == pytest.approx(sorted(SPACING))


def test_directions_that_are_no_numbers(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.ones((3, 4, 5), np.int16), np.eye(4))
    file = tmp_path / "scan.nii"
    nibabel.save(image, file)
    raw = bytearray(file.read_bytes())
    raw[280:296] = np.full(4, np.nan, "<f4").tobytes()
    file.write_bytes(raw)
    with pytest.raises(ImageError, match="its header states no direction; export the scan again"):
        read_image(file, REORIENT)
