"""MetaImage as SimpleITK has it, and files that nobody should believe."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from tests.submissions import save
from tests.volumes.itk import same_as_itk
from volumes import metaimage, nifti
from volumes.errors import VolumeError
from volumes.grid import grid_difference

SITK: Any = sitk
SHAPE_ZYX = (4, 5, 6)
TURNED = "0 1 0 -1 0 0 0 0 1"
PLAIN = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": TURNED,
    "Offset": "1.5 -2.5 3.5",
    "ElementSpacing": "0.8 0.9 2.5",
    "DimSize": "6 5 4",
    "ElementType": "MET_SHORT",
}


def oblique() -> NDArray[np.float64]:
    """Voxel index to RAS+ mm, turned about two axes, 0.8 x 0.9 x 2.5 mm."""
    a, b = np.deg2rad(10), np.deg2rad(-25)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([-0.8, -0.9, 2.5])
    affine[:3, 3] = (146.1, -12.3, -777.5)
    return affine


def voxels(dtype: str = "int16") -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 100, SHAPE_ZYX).astype(dtype)


def header(data: str = "LOCAL", /, **changes: str | None) -> bytes:
    """A header with some fields changed, added, or (None) left out."""
    fields = PLAIN | changes
    lines = [f"{name} = {value}\n" for name, value in fields.items() if value is not None]
    return "".join([*lines, f"ElementDataFile = {data}\n"]).encode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A sound mask as SimpleITK writes it, not compressed."""
    path = tmp_path / "mask.mha"
    SITK.WriteImage(SITK.GetImageFromArray(voxels("uint8")), str(path))
    return path


def changed(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(VolumeError) as caught:
        metaimage.read(path, strict=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TYPES = {
    "CHAR": "i1",
    "UCHAR": "u1",
    "SHORT": "i2",
    "USHORT": "u2",
    "INT": "i4",
    "UINT": "u4",
    "LONG": "i4",
    "ULONG": "u4",
    "LONG_LONG": "i8",
    "ULONG_LONG": "u8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}


@pytest.mark.parametrize("met", TYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
@pytest.mark.parametrize("packed", [True, False])
def test_every_type_order_and_place(
    tmp_path: Path, met: str, order: str, suffix: str, packed: bool
) -> None:
    stored = voxels(TYPES[met]).astype(np.dtype(order + TYPES[met])).tobytes()
    stored = zlib.compress(stored) if packed else stored
    fields = {
        "ElementType": f"MET_{met}",
        "BinaryDataByteOrderMSB": str(order == ">"),
        "CompressedData": str(packed),
        "CompressedDataSize": str(len(stored)) if packed else None,
    }
    path = tmp_path / f"a{suffix}"
    path.write_bytes(header(**fields) + stored if suffix == ".mha" else header("ä b.raw", **fields))
    (tmp_path / "ä b.raw").write_bytes(stored)
    same_as_itk(metaimage, path)


ODD: dict[str, dict[str, str | None]] = {
    "no spacing": {"ElementSpacing": None},
    "size of voxels alone": {"ElementSpacing": None, "ElementSize": "2 2 3"},
    "negative spacing": {"ElementSpacing": "-0.8 0.9 2.5"},
    "exponents": {"ElementSpacing": "8e-1 .9 25.0E-1"},
    "another name of the order": {"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "True"},
    "no order": {"BinaryDataByteOrderMSB": None},
    "no kind of data": {"BinaryData": None, "ObjectType": None, "CompressedData": None},
    "rotation": {"TransformMatrix": None, "Rotation": TURNED},
    "orientation, position": {
        "TransformMatrix": None,
        "Orientation": TURNED,
        "Offset": None,
        "Position": "7 8 9",
    },
    "no matrix, origin": {"TransformMatrix": None, "Offset": None, "Origin": "7 8 9"},
    "sheared": {"TransformMatrix": "1 0.5 0 0 1 0 0 0 1"},
    "tags of DICOM": {"0008|0060": "CT", "Series Description": "a = b: c", "Comment": "µ"},
    "one channel": {"ElementNumberOfChannels": "1"},
    "plane": {
        "NDims": "2",
        "TransformMatrix": "0 1 -1 0",
        "Offset": "1 2",
        "ElementSpacing": "2 3",
        "DimSize": "12 10",
    },
    "4th dimension of 1": {
        "NDims": "4",
        "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        "Offset": "1 2 3 4",
        "ElementSpacing": "1 2 3 4",
        "DimSize": "6 5 4 1",
    },
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("how", ["as it is", "colons", "CRLF", "local"])
def test_odd_headers(tmp_path: Path, name: str, how: str) -> None:
    head = header("local" if how == "local" else "LOCAL", **ODD[name])
    head = head.replace(b" = ", b": ") if how == "colons" else head
    head = head.replace(b"\n", b"\r\n") if how == "CRLF" else head
    path = tmp_path / "a.mha"
    path.write_bytes(head + voxels().tobytes())
    same_as_itk(metaimage, path)


@pytest.mark.parametrize("skip", [0, 7, -1])
def test_a_file_of_voxels_with_something_before_or_behind(tmp_path: Path, skip: int) -> None:
    before = b"1234567" if skip else b""
    (tmp_path / "a.raw").write_bytes(before + voxels().tobytes() + (b"" if skip < 0 else b"behind"))
    (tmp_path / "a.mhd").write_bytes(header("./a.raw", HeaderSize=str(skip)))
    same_as_itk(metaimage, tmp_path / "a.mhd")


def test_a_stream_whose_size_is_not_said_is_read(tmp_path: Path) -> None:
    """ITK gives other voxels then, without a word."""
    path = tmp_path / "a.mha"
    path.write_bytes(header(CompressedData="True") + zlib.compress(voxels().tobytes()))
    np.testing.assert_array_equal(metaimage.read(path)[1], voxels())


def test_a_scan_that_is_written_lies_where_its_nifti_does(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", voxels().T, oblique())
    scan, stored = nifti.read(tmp_path / "a.nii.gz")
    metaimage.write(
        tmp_path / "a.mha", metaimage.header_of(scan.grid), stored.dtype, [stored[:1], stored[1:]]
    )
    ours, theirs = (SITK.ReadImage(str(tmp_path / name)) for name in ("a.mha", "a.nii.gz"))
    np.testing.assert_array_equal(SITK.GetArrayFromImage(ours), voxels())
    assert ours.GetPixelID() == theirs.GetPixelID() == SITK.sitkInt16
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(ours, what)() == pytest.approx(getattr(theirs, what)(), abs=1e-5), what
    again = metaimage.read_header(tmp_path / "a.mha", strict=True)
    assert grid_difference(scan.grid, again.grid) is None
    assert again.dtype == np.int16


@pytest.mark.parametrize("dtype", sorted(set(TYPES.values())))
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_every_type_is_written(tmp_path: Path, dtype: str, suffix: str) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(header(**ODD["orientation, position"]) + voxels().tobytes())
    scan = metaimage.read_header(path)
    written = tmp_path / f"b{suffix}"
    metaimage.write(written, scan, np.dtype(dtype), [voxels(dtype)])
    assert same_as_itk(metaimage, written).dtype == dtype
    before, after = (SITK.ReadImage(str(name)) for name in (path, written))
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(after, what)() == getattr(before, what)(), what


@pytest.mark.parametrize("elsewhere", [b"= other.raw", b"= /etc/passwd", b": LIST", b"= a%d.raw"])
def test_voxels_of_another_file_are_not_read(file: Path, elsewhere: bytes) -> None:
    """With ITK's reader a mask could name the reference that it is held against."""
    (file.parent / "other.raw").write_bytes(bytes(voxels().size))
    said = refusal(changed(file, b"= LOCAL", elsewhere))
    assert said.startswith("its ElementDataFile is ")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"NDims = 3", b"NDims = 4", "its NDims is 4"),
        (b"NDims = 3", b"NDims = 2", "its NDims is 2"),
        (b"NDims = 3", b"NDims = 1e308", "its NDims is 1e308"),
        (b"NDims = 3", b"NDims = -2147483648", "its NDims is -2147483648"),
        (b"BinaryData = True", b"BinaryData = False", "its BinaryData is False"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5", "its DimSize is '6 5'"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 x", "its DimSize is '6 5 x'"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 0", "its DimSize is '6 5 0'"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 -4", "its DimSize is '6 5 -4'"),
        (b"DimSize = 6 5 4", b"DimSize = 6 5 4.5", "its DimSize is '6 5 4.5'"),
        (
            b"Spacing = 1 1 1",
            b"Spacing = 1 1 0",
            "span no volume, with steps of (1.0, 1.0, 0.0)",
        ),
        (b"Spacing = 1 1 1", b"Spacing = 1 1 nan", "its ElementSpacing cannot be"),
        (b"Matrix = 1 0 0", b"Matrix = 0 1 0", "its axes span no volume"),
        (b"Offset = 0 0 0", b"Offset = 0 0 inf", "its Offset cannot be"),
        (b"MET_UCHAR", b"MET_STRING", "holds MET_STRING voxels"),
        (b"MET_UCHAR", b"MET_UCHAR\nElementNumberOfChannels = 3", "Channels is 3"),
        (b"NDims = 3", b"NDims = 3\nHeaderSize = 7", "its HeaderSize cannot be 7"),
        (b"NDims = 3", b"NDims = 3\nHeaderSize = 1e308", "its HeaderSize cannot be '1e308'"),
        (b"MET_UCHAR", b"\x1b[31mMET_UCHAR", "holds \N{REPLACEMENT CHARACTER}[31mMET_UCHAR"),
        (b"ObjectType = Image\n", b"\x1f\x8b\x08 gzip\n", "not a MetaImage file"),
        (b"ObjectType = Image\n", b"a = " + b"x" * 2**17 + b"\n", "not a MetaImage file"),
    ],
)
def test_what_is_no_mask_is_named(file: Path, old: bytes, new: bytes, says: str) -> None:
    assert says in refusal(changed(file, old, new))


def damaged(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("compressed", "spoil", "says"),
    [
        (False, lambda content: content[:-1], "truncated, the header promises 120 bytes"),
        (True, lambda content: content[:-20], "truncated"),
        (True, damaged, "damaged"),
        (False, lambda content: content[:60], "not a MetaImage file"),
        (False, lambda content: b"", "not a MetaImage file"),
    ],
)
def test_a_damaged_file_is_named(
    file: Path, compressed: bool, spoil: Callable[[bytes], bytes], says: str
) -> None:
    image = SITK.GetImageFromArray(voxels("uint8"))
    SITK.WriteImage(image, str(file), useCompression=compressed)
    file.write_bytes(spoil(file.read_bytes()))
    assert says in refusal(file)


def test_little_more_is_unpacked_than_the_header_asks_for(file: Path) -> None:
    bomb = SITK.Image([1000, 1000, 100], SITK.sitkUInt8)
    SITK.WriteImage(bomb, str(file), useCompression=True)
    changed(file, b"DimSize = 1000 1000 100", b"DimSize = 6 5 4")
    tracemalloc.start()
    assert refusal(file).startswith("goes on for over 16777216 bytes behind its voxels")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22  # the whole would be 95 MiB
