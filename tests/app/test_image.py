"""app.image: what a caller sees of reading, writing and refusing, in every format."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from app.image import (
    SUFFIXES,
    Image,
    ImageError,
    read_image,
    same_grid,
    suffix_of,
    write_planes,
)

Array = npt.NDArray[Any]

SITK: Any = sitk
ROOT = Path(__file__).parents[2]
SPACING = (0.8, 0.9, 2.5)
TILTED = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, -1.0)
SHAPE = (3, 4, 5)
DATA = {".mhd": ["case.zraw"], ".nhdr": ["case.raw.gz"]}  # beside the header


def write_mask(path: Path, mask: Array, like: Image) -> None:
    """Write a label map that is there at once."""
    write_planes(path, iter([mask]), mask.dtype, like)


def save(path: Path, voxels: Array, **grid: Any) -> Path:
    """Write voxels (z, y, x) as a tilted CT through SimpleITK."""
    scan = SITK.GetImageFromArray(voxels)
    if voxels.ndim == 3:
        scan.SetSpacing(grid.get("spacing", SPACING))
        scan.SetOrigin((-120.5, 33.25, 800.0))
        scan.SetDirection(TILTED)
    SITK.WriteImage(scan, str(path), path.suffix != ".nii")
    return path


def ct(dtype: str = "int16", shape: tuple[int, ...] = SHAPE) -> Array:
    return (np.arange(np.prod(shape)) * 5 - 100).astype(dtype).reshape(shape)


def labels(like: Image, dtype: str = "uint8") -> Array:
    return (np.arange(like.voxels.size) % 3).astype(dtype).reshape(like.voxels.shape)


def nnunet_view(path: Path) -> tuple[Array, tuple[float, ...]]:
    scan = SITK.ReadImage(str(path))
    return SITK.GetArrayFromImage(scan).astype(np.float32), scan.GetSpacing()[::-1]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "int32", "float32", "float64"])
def test_reads_what_nnunet_reads(tmp_path: Path, suffix: str, dtype: str) -> None:
    path = save(tmp_path / f"case{suffix}", ct(dtype))
    voxels, spacing = nnunet_view(path)
    scan = read_image(path)
    assert scan.voxels.dtype == ("float32" if dtype == "float64" else dtype)
    assert scan.voxels.astype(np.float32).tobytes() == voxels.tobytes()
    assert scan.voxels.shape == voxels.shape
    assert scan.spacing_zyx == spacing
    assert scan.notes == ()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mask_lies_on_the_scan(tmp_path: Path, suffix: str, dtype: str) -> None:
    scan_file = save(tmp_path / f"case{suffix}", ct())
    (tmp_path / "out").mkdir()
    mask_file = tmp_path / "out" / f"case{suffix}"
    scan = read_image(scan_file)
    mask = labels(scan, dtype)
    write_mask(mask_file, mask, scan)
    scan_file.unlink()
    after = SITK.ReadImage(str(mask_file))
    assert after.GetSpacing() == pytest.approx(SPACING, rel=1e-7)
    assert after.GetOrigin() == pytest.approx((-120.5, 33.25, 800.0))
    assert after.GetDirection() == pytest.approx(TILTED, abs=1e-6)
    stored = SITK.GetArrayFromImage(after)
    assert stored.dtype == dtype
    assert np.array_equal(stored, mask)
    names = {file.name for file in mask_file.parent.iterdir()}
    assert names == ({f"case{suffix}", *DATA.get(suffix, [])})


def test_masks_are_compressed(tmp_path: Path) -> None:
    voxels = ct(shape=(20, 64, 64))
    for suffix in (".nii.gz", ".mha", ".nrrd"):
        scan = read_image(save(tmp_path / f"case{suffix}", voxels))
        write_mask(tmp_path / f"mask{suffix}", np.zeros(voxels.shape, np.uint8), scan)
        assert (tmp_path / f"mask{suffix}").stat().st_size < voxels.size / 20


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".nrrd"])
def test_a_plane_is_one_slice_with_nnunets_spacing(tmp_path: Path, suffix: str) -> None:
    scan_file = save(tmp_path / f"case{suffix}", ct(shape=(4, 5)))
    scan = read_image(scan_file)
    assert scan.voxels.shape == (1, 4, 5)
    assert scan.spacing_zyx == (999.0, 1.0, 1.0)
    assert "two-dimensional" in scan.notes[0]
    write_mask(tmp_path / f"mask{suffix}", labels(scan), scan)
    assert SITK.ReadImage(str(tmp_path / f"mask{suffix}")).GetSize() == (5, 4)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_fourth_dimension_of_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"case{suffix}"
    volume = SITK.GetImageFromArray(ct())
    volume.SetSpacing(SPACING)
    SITK.WriteImage(SITK.JoinSeries([volume]), str(path))
    scan = read_image(path)
    assert np.array_equal(scan.voxels, ct())
    assert scan.spacing_zyx == SPACING[::-1]
    write_mask(path, labels(scan), scan)
    assert SITK.ReadImage(str(path)).GetSize() == (5, 4, 3, 1)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_voxels_that_are_not_finite_become_zero(tmp_path: Path, suffix: str, dtype: str) -> None:
    voxels = ct(dtype) + 500
    voxels[0, 0, :3] = (np.nan, np.inf, -np.inf)
    scan = read_image(save(tmp_path / f"case{suffix}", voxels))
    expected = ct("float32") + 500
    expected[0, 0, :3] = 0
    assert np.array_equal(scan.voxels, expected)
    assert scan.notes == ("3 voxels are not finite, set to 0",)


def test_float64_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    voxels = ct("float64")
    voxels[0, 0, 0] = 1e300
    scan = read_image(save(tmp_path / "case.nii", voxels))
    assert scan.voxels[0, 0, 0] == 0
    assert "1 voxels are not finite" in scan.notes[0]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def cut(path: Path) -> Path:
    return write(path, path.read_bytes()[:-20])


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "case.nii.gz", "no such file"),
    "folder": (lambda d: folder(d / "case.nii.gz"), "holds no slice of a CT"),
    "suffix": (lambda d: write(d / "case.dcm", b""), "expected one of .nii.gz, .nii, .mha,"),
    "cut gzip": (lambda d: cut(save(d / "case.nii.gz", ct())), "gzip stream ends early"),
    "cut": (lambda d: cut(save(d / "case.nii", ct())), "truncated"),
    "cut mha": (lambda d: cut(save(d / "case.mha", ct())), "zlib stream ends early"),
    "cut nrrd": (lambda d: cut(save(d / "case.nrrd", ct())), "gzip stream ends early"),
    "NaN": (lambda d: save(d / "c.nii", np.full(SHAPE, np.nan, "f4")), "no voxel is a finite"),
    "NaN nrrd": (lambda d: save(d / "c.nrrd", np.full(SHAPE, np.nan, "f4")), "no voxel is a"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_in_one_line(tmp_path: Path, name: str) -> None:
    make, phrase = REFUSED[name]
    path = make(tmp_path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert phrase in message
    assert "; " in message
    assert "\n" not in message
    assert "0x" not in message


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "case.nii.gz", ct())

    def denied(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(ImageError, match="Permission denied"):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.nii.gz", ".nii.gz"), ("a.b.nii", ".nii"), ("A.NII.GZ", ".nii.gz"), ("a.nrrd", ".nrrd")],
)
def test_suffix_of(name: str, suffix: str) -> None:
    assert suffix_of(Path("folder.mha") / name) == suffix


class TestWriting:
    @pytest.fixture
    def scan(self, tmp_path: Path) -> Image:
        (tmp_path / "in").mkdir()
        (tmp_path / "out").mkdir()
        return read_image(save(tmp_path / "in" / "case.nii.gz", ct()))

    @pytest.fixture
    def mhd(self, tmp_path: Path, scan: Image) -> Image:
        return read_image(save(tmp_path / "in" / "case.mhd", ct()))

    def test_another_name(self, tmp_path: Path, scan: Image) -> None:
        with pytest.raises(ImageError, match=r"case.png: not an image file name"):
            write_mask(tmp_path / "out" / "case.png", labels(scan), scan)

    def test_replaces_and_is_readable_by_others(self, tmp_path: Path, scan: Image) -> None:
        path = tmp_path / "out" / "case.nii.gz"
        path.write_bytes(b"old")
        write_mask(path, labels(scan), scan)
        assert np.array_equal(read_image(path).voxels, labels(scan))
        plain = tmp_path / "plain"
        plain.touch()
        assert path.stat().st_mode == plain.stat().st_mode

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_nothing_that_looks_like_a_result_before_the_end(
        self, tmp_path: Path, scan: Image, suffix: str
    ) -> None:
        seen: list[str] = []

        def planes() -> Iterator[Array]:
            for plane in labels(scan):
                yield plane[None]
                seen.extend(file.name for file in (tmp_path / "out").rglob("*"))

        path = tmp_path / "out" / f"case{suffix}"
        write_planes(path, planes(), np.uint8, scan)
        assert seen
        assert not [name for name in seen if not name.startswith(".") or name.endswith(SUFFIXES)]
        assert np.array_equal(read_image(path).voxels, labels(scan))

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_full_disk_leaves_the_old_result(
        self, tmp_path: Path, scan: Image, suffix: str
    ) -> None:
        path = tmp_path / "out" / f"case{suffix}"
        write_mask(path, labels(scan), scan)
        before = {file: file.read_bytes() for file in path.parent.iterdir()}

        def full() -> Iterator[Array]:
            yield np.ones((1, *SHAPE[1:]), np.uint8)
            raise OSError(28, "No space left on device")

        with pytest.raises(ImageError, match=f"case{suffix}: .*No space left on device"):
            write_planes(path, full(), np.uint8, scan)
        assert {file: file.read_bytes() for file in path.parent.iterdir()} == before

    @pytest.mark.parametrize("name", ["case.nii.gz", "case.mhd"])
    def test_a_folder_in_the_way(self, tmp_path: Path, scan: Image, mhd: Image, name: str) -> None:
        (tmp_path / "out" / name).mkdir()
        like = mhd if name.endswith(".mhd") else scan
        with pytest.raises(ImageError, match="Is a directory"):
            write_mask(tmp_path / "out" / name, labels(like), like)
        assert [file.name for file in (tmp_path / "out").iterdir()] == [name]

    def test_mhd_names_its_data_which_comes_first(
        self, tmp_path: Path, mhd: Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        placed: list[str] = []
        really = Path.replace

        def spy(source: Path, target: Path) -> Path:
            placed.append(target.name)
            return really(source, target)

        monkeypatch.setattr(Path, "replace", spy)
        write_mask(tmp_path / "out" / "other.mhd", labels(mhd), mhd)
        assert placed == ["other.zraw", "other.mhd"]
        assert "ElementDataFile = other.zraw" in (tmp_path / "out" / "other.mhd").read_text()


@pytest.mark.parametrize(
    ("shape", "spacing", "phrase"),
    [
        (SHAPE, SPACING, None),
        (SHAPE, (0.8000001, 0.9, 2.5), None),
        ((3, 4, 6), SPACING, "different shape (3 x 4 x 6, not 3 x 4 x 5)"),
        (SHAPE, (0.8, 0.9, 2.6), "different spacing (2.6 x 0.9 x 0.8 mm, not 2.5 x 0.9 x 0.8 mm)"),
    ],
)
def test_same_grid(
    tmp_path: Path, shape: tuple[int, ...], spacing: tuple[float, ...], phrase: str | None
) -> None:
    first = read_image(save(tmp_path / "a.mha", ct()))
    second = read_image(save(tmp_path / "b.mha", ct(shape=shape), spacing=spacing))
    assert same_grid(first, second) == phrase


@pytest.mark.parametrize(
    "name",
    [
        "CRLM-CT-1004_ct",
        "GETilt-head_ct",
        "IBSI-phantom_ct",
        "IBSI-phantom_label",
        "TotalSeg-example_ct",
    ],
)
def test_real_scans(real_data: Path, tmp_path: Path, name: str) -> None:
    path = real_data / "ct" / f"{name}.nii.gz"
    voxels, spacing = nnunet_view(path)
    scan = read_image(path)
    assert scan.voxels.astype(np.float32).tobytes() == voxels.tobytes()
    assert scan.spacing_zyx == spacing
    mask = (scan.voxels > 100).astype(np.uint8)
    write_mask(tmp_path / "mask.nii.gz", mask, scan)
    before, after = SITK.ReadImage(str(path)), SITK.ReadImage(str(tmp_path / "mask.nii.gz"))
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(after, what)() == getattr(before, what)(), what
    assert np.array_equal(SITK.GetArrayViewFromImage(after), mask)
