import gzip
import os
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.errors import EvaluationError
from evaluation.volumes import Header, grid_difference, lesion_ml, read, read_header

SPACING_ZYX = (5.0, 0.8, 0.7)
# x to the left, y to the back, z to the head; as float32 holds it.
AFFINE = np.array([[-0.7, 0, 0, 146.1], [0, -0.8, 0, -12.3], [0, 0, 5.0, -777.5], [0, 0, 0, 1]])
VOXELS = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4) - 7


def header_bytes(
    voxels_zyx: NDArray[Any],
    kind: Any = nibabel.Nifti1Header,
    endianness: str = "<",
    sform: tuple[NDArray[np.float64], int] | None = (AFFINE, 1),
    qform: tuple[NDArray[np.float64], int] | None = (AFFINE, 1),
    **fields: Any,
) -> bytes:
    header = kind(endianness=endianness)
    header.set_data_dtype(voxels_zyx.dtype)
    header.set_data_shape(voxels_zyx.shape[::-1])
    header.set_zooms(SPACING_ZYX[::-1])
    for form, set_form in ((sform, header.set_sform), (qform, header.set_qform)):
        if form is not None:
            set_form(form[0], form[1])
    header["vox_offset"] = header.template_dtype.itemsize + 4
    for name, value in fields.items():
        header[name] = value
    content: bytes = header.binaryblock + bytes(4)  # which say that no extension follows
    return content


def write(path: Path, voxels_zyx: NDArray[Any] = VOXELS, **given: Any) -> Path:
    content = header_bytes(voxels_zyx, **given)
    swapped = given.get("endianness") == ">"
    content += (voxels_zyx.byteswap() if swapped else voxels_zyx).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(EvaluationError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Header, nibabel.Nifti2Header])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_header_and_voxels(tmp_path: Path, name: str, kind: Any, endianness: str) -> None:
    path = write(tmp_path / name, kind=kind, endianness=endianness)
    volume = read(path)
    np.testing.assert_array_equal(volume.voxels_zyx, VOXELS)
    header = volume.header
    assert volume.voxels_zyx.dtype == header.dtype == np.dtype(f"{endianness}i2")
    assert header.path == path
    assert header.shape_zyx == (6, 5, 4)
    assert header.spacing_zyx == pytest.approx(SPACING_ZYX)
    assert header.voxel_ml == pytest.approx(0.7 * 0.8 * 5.0 / 1000)
    np.testing.assert_allclose(header.affine, AFFINE, rtol=1e-6)
    assert len(header.affines) == 2
    assert str(read_header(path)) == str(header)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.float32, np.float64]
)
def test_voxels_keep_their_type(tmp_path: Path, dtype: type[np.generic]) -> None:
    volume = read(write(tmp_path / "a.nii", VOXELS.clip(0).astype(dtype)))
    assert volume.voxels_zyx.dtype == dtype
    np.testing.assert_array_equal(volume.voxels_zyx, VOXELS.clip(0))


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
@pytest.mark.parametrize(("slope", "intercept"), [(2.5, -1024.0), (1.0, -1024.0), (0.5, 0.0)])
def test_scaled_voxels_are_float64(
    tmp_path: Path, dtype: type[np.generic], slope: float, intercept: float
) -> None:
    fields = {"scl_slope": slope, "scl_inter": intercept}
    volume = read(write(tmp_path / "a.nii", VOXELS.astype(dtype), **fields))
    np.testing.assert_array_equal(volume.voxels_zyx, VOXELS * slope + intercept)
    assert volume.voxels_zyx.dtype == volume.header.dtype == np.float64


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.0, 5.0), (np.nan, 5.0)])
def test_scaling_that_does_nothing_leaves_the_type(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    volume = read(write(tmp_path / "a.nii", scl_slope=slope, scl_inter=intercept))
    np.testing.assert_array_equal(volume.voxels_zyx, VOXELS)
    assert volume.voxels_zyx.dtype == volume.header.dtype == np.int16


def test_what_is_not_finite_survives(tmp_path: Path) -> None:
    voxels = VOXELS.astype(np.float32)
    voxels[0, 0, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(read(write(tmp_path / "a.nii.gz", voxels)).voxels_zyx, voxels)


def test_a_header_extension_is_skipped(tmp_path: Path) -> None:
    content = bytearray(header_bytes(VOXELS, vox_offset=352 + 32))
    content[348] = 1
    extension = np.array([32, 6], np.int32).tobytes() + b"a comment".ljust(24, b"\0")
    path = tmp_path / "a.nii"
    path.write_bytes(bytes(content) + extension + VOXELS.tobytes())
    np.testing.assert_array_equal(read(path).voxels_zyx, VOXELS)


def test_truncated_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    whole = write(path).read_bytes()
    for length in (len(whole) - 1, len(whole) - 8, len(whole) - 40):
        path.write_bytes(whole[:length])
        assert refusal(path) == "truncated gzip; write the file again"
    path.write_bytes(whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:])
    assert refusal(path).startswith("damaged gzip (CRC check failed")
    # The decompressor itself has errors of a type of their own.
    path.write_bytes(whole[:10] + b"\xff" * 50 + whole[60:])
    assert refusal(path).startswith("damaged gzip (Error")


def test_missing_voxels_are_counted(tmp_path: Path) -> None:
    content = write(tmp_path / "a.nii").read_bytes()[:-1]
    (tmp_path / "a.nii").write_bytes(content)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    for name in ("a.nii", "a.nii.gz"):
        assert refusal(tmp_path / name) == "truncated: 591 of 592 bytes; write the file again"


def test_no_more_is_decompressed_than_the_header_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(header_bytes(VOXELS) + VOXELS.tobytes() + bytes(2**26), 1))
    tracemalloc.start()
    np.testing.assert_array_equal(read(path).voxels_zyx, VOXELS)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**22


@pytest.mark.parametrize("size", [2**15 - 1, 2**40])
def test_a_header_that_asks_for_more_than_any_memory_is_refused(tmp_path: Path, size: int) -> None:
    content = header_bytes(VOXELS, nibabel.Nifti2Header, dim=(3, size, size, size, 1, 1, 1, 1))
    for path in (tmp_path / "a.nii", tmp_path / "a.nii.gz"):
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        assert refusal(path) == f"truncated: 544 of {544 + 2 * size**3} bytes; write the file again"


def test_voxels_lie_at_most_16_mib_behind_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    for offset, there in ((2**24, True), (2**24 + 16, False)):
        head = header_bytes(VOXELS, vox_offset=offset).ljust(offset, b"\0")
        path.write_bytes(gzip.compress(head + VOXELS.tobytes(), 1))
        if there:
            np.testing.assert_array_equal(read(path).voxels_zyx, VOXELS)
        else:
            assert refusal(path) == "its voxels cannot start at byte 1.67772e+07"


@pytest.mark.parametrize("offset", [0.0, 347.0, -352.0, 1e12, np.nan, np.inf])
def test_voxels_inside_the_header_or_far_behind_it_are_refused(
    tmp_path: Path, offset: float
) -> None:
    path = write(tmp_path / "a.nii", vox_offset=offset)
    assert refusal(path).startswith(("its voxels cannot start at byte", "not a NIfTI file"))


def test_other_content_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no image", bytes(1000)):
        for path in (tmp_path / "a.nii", tmp_path / "a.nii.gz"):
            path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
            assert refusal(path).startswith("not a NIfTI file")
    path.write_bytes(b"no gzip stream")
    assert refusal(path).startswith("damaged gzip (Not a gzipped file")
    valid = write(tmp_path / "a.nii", scl_slope=1.0, scl_inter=np.nan)
    assert refusal(valid).startswith("not a NIfTI file")


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    (tmp_path / "to-the-pipe.nii.gz").symlink_to("pipe.nii.gz")
    for name in ("folder", "pipe", "to-the-pipe"):
        assert refusal(tmp_path / f"{name}.nii.gz") == "not a regular file"
    (tmp_path / "to-nothing.nii.gz").symlink_to("nothing")
    for name in ("absent", "to-nothing"):
        assert refusal(tmp_path / f"{name}.nii.gz") == "no such file"
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    assert refusal(tmp_path / "loop.nii.gz").startswith("cannot be opened (Too many levels")


def test_other_than_one_number_a_voxel_in_3_dimensions_is_refused(tmp_path: Path) -> None:
    expected = "expected one number a voxel in 3 dimensions"
    path = tmp_path / "a.nii"
    for shape in ((1, 2, 3, 4), (2, 3), (2, 3, 0), (2, 3, -1)):
        dim = [len(shape), *shape, *[1] * (7 - len(shape))]
        path.write_bytes(header_bytes(VOXELS, dim=dim) + bytes(100))
        assert refusal(path).endswith(expected)
    for code in (32, 128, 2304):  # complex numbers, RGB, RGBA
        path.write_bytes(header_bytes(VOXELS, datatype=code) + bytes(9999))
        assert refusal(path).endswith(expected)


@pytest.mark.slow
def test_real_scans_are_read_as_nibabel_reads_them(real_data: Path) -> None:
    paths = sorted((real_data / "ct").glob("*.nii.gz"))
    assert paths
    for path in paths:
        volume, theirs = read(path), nibabel.Nifti1Image.from_filename(path)
        np.testing.assert_array_equal(volume.voxels_zyx.transpose(), np.asarray(theirs.dataobj))
        np.testing.assert_array_equal(volume.header.affine, theirs.affine)
        assert grid_difference(volume.header, volume.header) is None


def grid(folder: Path, **given: Any) -> Header:
    return read_header(write(folder / "grid.nii", **given))


def test_a_copy_has_the_same_grid(tmp_path: Path) -> None:
    scan = grid(tmp_path)
    copied = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), scan.affine)
    nibabel.save(copied, tmp_path / "copy.nii.gz")  # leaves the qform without a code
    assert grid_difference(scan, read_header(tmp_path / "copy.nii.gz")) is None


def moved(axis: int, to_mm: float) -> NDArray[np.float64]:
    affine = AFFINE.copy()
    affine[axis, 3] = to_mm
    return affine


def test_every_part_of_the_grid_is_compared(tmp_path: Path) -> None:
    scan = grid(tmp_path)
    mask = grid(tmp_path, voxels_zyx=VOXELS.reshape(6, 4, 5))
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


def test_lesion_volume_is_voxels_times_spacing(tmp_path: Path) -> None:
    voxels = np.zeros((6, 5, 4), np.uint8)
    voxels[0, 0, 0], voxels[3, 2, 1] = 1, 2
    mask = read(write(tmp_path / "a.nii.gz", voxels))
    assert lesion_ml(mask) == pytest.approx(2 * 0.7 * 0.8 * 5.0 / 1000)
