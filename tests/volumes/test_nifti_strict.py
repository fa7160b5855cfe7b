"""volumes.nifti as a judge reads: nibabel's grid, nothing believed, nothing unpacked unasked."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.spatialimages import HeaderDataError

from tests.volumes.nifti_files import (
    FLIPPED,
    NIB,
    OBLIQUE,
    ODD_HEADERS,
    SHAPE_XYZ,
    Fields,
    scan_bytes,
)
from volumes import nifti
from volumes.errors import VolumeError
from volumes.grid import Grid

VOXELS = scan_bytes()[352:]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    return path


def refusal(path: Path) -> str:
    """What both ways to read say; a fault behind the header is seen when the voxels are."""
    with pytest.raises(VolumeError) as caught:
        nifti.read(path, strict=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def affines_by_nibabel(header: Any) -> list[Any]:
    """Those that are set: a quaternion that is none counts as not set."""
    found = []
    for get in (header.get_sform, header.get_qform):
        try:
            affine, code = get(coded=True)
        except (HeaderDataError, ValueError):
            continue
        if code:
            found.append(affine)
    return found


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", [*ODD_HEADERS, "quaternion longer than 1"])
def test_the_grid_is_nibabels(tmp_path: Path, name: str, order: str, version: int) -> None:
    fields = {"srow": FLIPPED, **ODD_HEADERS.get(name, {"quatern": [2, 0, 0]})}
    if version == 2:
        fields.pop("magic", None)
        fields.pop("vox_offset", None)
    data = scan_bytes(order=order, version=version, **fields)
    header = nifti.read_header(write(tmp_path / "a.nii", data))
    kind = NIB.Nifti1Header if version == 1 else NIB.Nifti2Header
    theirs = kind(data[: kind.sizeof_hdr], endianness=order, check=False)
    theirs.check_fix(error_level=50)
    mm = {"metres": 1000, "microns": 0.001, "microns and milliseconds": 0.001}.get(name, 1)
    too_few = header.fields["dim"][0] < 3 or name == "trailing 0"
    if too_few or not np.isfinite(header.fields["pixdim"]).all() or mm != 1:
        with pytest.raises(VolumeError, match=r"one number a voxel|cannot measure|xyzt_units"):
            header.check_strictly()
        if mm == 1:
            return
    else:
        header.check_strictly()
    expected = [np.diag([mm, mm, mm, 1]) @ affine for affine in affines_by_nibabel(theirs)]
    grid, zooms = header.grid, [mm * float(step) for step in theirs.get_zooms()[:3]]
    assert grid.shape_zyx == theirs.get_data_shape()[2::-1]
    assert grid.spacing_zyx == tuple(zooms[::-1])
    assert len(grid.affines) == len(expected)
    for ours, affine in zip(grid.affines, expected, strict=True):
        np.testing.assert_allclose(ours, affine, atol=1e-6)
    best = expected[0] if expected else theirs.get_base_affine()
    np.testing.assert_allclose(grid.affine, best, atol=1e-6)
    assert grid.voxel_ml == pytest.approx(np.prod(zooms) / 1000)


def test_a_new_header_states_its_grid(tmp_path: Path) -> None:
    affine = np.array([[0, -0.9, 0, 10], [0.8, 0, 0, 20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
    grid = Grid.of_affine((3, 4, 5), affine)
    path = tmp_path / "a.nii.gz"
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nifti.write(path, nifti.header_of(grid), voxels.dtype, [voxels[:1], voxels[1:]])
    image = NIB.load(path)
    np.testing.assert_allclose(image.affine, affine, rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, voxels)
    assert image.header.get_zooms() == pytest.approx((0.8, 0.9, 2.5))


@pytest.mark.parametrize("form", [{"sform_code": 1}, {"sform_code": 1, "qform_code": 0}, {}])
def test_a_part_lies_where_it_lay(tmp_path: Path, form: dict[str, int]) -> None:
    fields: Fields = {"srow": FLIPPED, "quatern": OBLIQUE, **form}
    data = scan_bytes(**fields)
    header, voxels = nifti.read(write(tmp_path / "a.nii", data))
    part = header.part((1, 2, 0), (2, 1, 4))
    nifti.write(tmp_path / "b.nii", part, voxels.dtype, [voxels[1:, 2:3, :4]])
    whole, cut = NIB.load(tmp_path / "a.nii"), NIB.load(tmp_path / "b.nii")
    expected = whole.slicer[:4, 2:3, 1:]
    np.testing.assert_array_equal(np.asarray(cut.dataobj), np.asarray(expected.dataobj))
    np.testing.assert_allclose(cut.affine, expected.affine, atol=1e-5)
    assert len(part.grid.affines) == len(header.grid.affines)


REFUSED: dict[str, tuple[bytes, str]] = {
    "4 dimensions": (
        scan_bytes(dim=(4, *SHAPE_XYZ, 2, 1, 1, 1)),
        "has shape (5, 4, 3, 2) of int16",
    ),
    "2 dimensions": (scan_bytes(dim=(2, 5, 4, 1, 1, 1, 1, 1)), "has shape (5, 4) of int16"),
    "an empty one": (scan_bytes(dim=(3, 5, 4, 0, 1, 1, 1, 1)), "has shape (5, 4, 0) of int16"),
    "a negative one": (scan_bytes(dim=(3, 5, 4, -1, 1, 1, 1, 1)), "has shape (5, 4, -1) of int16"),
    "voxels at 0": (scan_bytes(vox_offset=0), "its voxels cannot start at byte 0"),
    "in the header": (scan_bytes(vox_offset=347), "its voxels cannot start at byte 347"),
    "before it": (scan_bytes(vox_offset=-352), "its voxels cannot start at byte -352"),
    "spacing of NaN": (
        scan_bytes(pixdim=[1, 1, np.nan, 1, 1, 1, 1, 1]),
        "cannot measure (1.0, nan,",
    ),
    "spacing of inf": (
        scan_bytes(pixdim=[1, 1, 1, np.inf, 1, 1, 1, 1]),
        "cannot measure (1.0, 1.0, inf",
    ),
    "shift by NaN": (scan_bytes(scl_slope=1, scl_inter=np.nan), "cannot be shifted by nan"),
    "shift by inf": (scan_bytes(scl_slope=2, scl_inter=np.inf), "cannot be shifted by inf"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_mask_needs_is_refused(tmp_path: Path, name: str) -> None:
    data, says = REFUSED[name]
    path = write(tmp_path / "a.nii", data)
    assert says in refusal(path)
    with pytest.raises(VolumeError):
        nifti.read_header(path, strict=True)


def test_a_quaternion_of_nan_is_not_set(tmp_path: Path) -> None:
    header = nifti.read_header(write(tmp_path / "a.nii", scan_bytes(quatern=[np.nan] * 3)))
    assert header.grid.affines == ()
    assert np.isfinite(header.grid.affine).all()


@pytest.mark.parametrize("offset", [1e12, np.nan, np.inf])
def test_an_offset_that_is_none(tmp_path: Path, offset: float) -> None:
    data = bytearray(scan_bytes())
    data[108:112] = np.float32(offset).tobytes()
    assert "its voxels cannot start at byte" in refusal(write(tmp_path / "a.nii", bytes(data)))


@pytest.mark.parametrize(("offset", "there"), [(2**24, True), (2**24 + 16, False)])
def test_voxels_lie_at_most_16_mib_behind_the_header(
    tmp_path: Path, offset: int, there: bool
) -> None:
    path = write(tmp_path / "a.nii.gz", scan_bytes(vox_offset=offset))
    if there:
        assert nifti.read(path, strict=True)[1].tobytes() == VOXELS
    else:
        assert refusal(path).startswith("its voxels cannot start at byte 1.67772e+07")


@pytest.mark.parametrize("size", [2**15 - 1, 2**40, 1200])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_header_that_asks_for_more_than_any_memory(tmp_path: Path, name: str, size: int) -> None:
    data = scan_bytes(version=2, dim=(3, size, size, size, 1, 1, 1, 1), values=np.zeros(0))
    says = "no person's" if size > 1200 else f"truncated, the header promises {2 * size**3} bytes"
    assert says in refusal(write(tmp_path / name, data))


@pytest.mark.parametrize(("behind", "read"), [(2**24, True), (2**28, False)])
def test_little_more_is_unpacked_than_the_header_asks_for(
    tmp_path: Path, behind: int, read: bool
) -> None:
    path = write(tmp_path / "bomb.nii.gz", scan_bytes() + bytes(behind))
    tracemalloc.start()
    if read:
        assert nifti.read(path, strict=True)[1].tobytes() == VOXELS
    else:
        assert refusal(path).startswith("goes on for over 16777216 bytes behind its voxels; ")
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**22
    # What is behind the voxels belongs to the checksum.
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(path).startswith("truncated, the gzip stream ends" if read else "goes on for")


@pytest.mark.parametrize("strict", [True, False])
def test_what_is_no_regular_file(tmp_path: Path, strict: bool) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "to-the-pipe.nii.gz").symlink_to("pipe.nii.gz")
    (tmp_path / "to-nothing.nii.gz").symlink_to("nothing")
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    for name, says in {
        "folder": "not a regular file; ",
        "pipe": "not a regular file; ",
        "to-the-pipe": "not a regular file; ",
        "absent": "no such file; ",
        "to-nothing": "no such file; ",
        "loop": "cannot be read (Too many levels of symbolic links); ",
    }.items():
        with pytest.raises(VolumeError) as caught:
            nifti.read(tmp_path / f"{name}.nii.gz", strict=strict)
        assert str(caught.value).startswith(says)
