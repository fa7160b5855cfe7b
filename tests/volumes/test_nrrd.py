"""NRRD as SimpleITK has it, and files that nobody should believe."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from tests.volumes.itk import same_as_itk
from volumes import nrrd
from volumes.errors import VolumeError
from volumes.grid import LPS

SITK: Any = sitk
SHAPE_ZYX = (4, 5, 6)
PLAIN = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "6 5 4",
    "space directions": "(0,0.8,0) (-0.9,0,0) (0,0,2.5)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(1.5,-2.5,3.5)",
}
NO_SPACE = dict.fromkeys(["space", "space directions", "space origin"])
TYPES = {
    "i1": ["signed char", "int8", "int8_t"],
    "u1": ["uchar", "unsigned char", "uint8", "uint8_t"],
    "i2": ["short", "short int", "signed short", "signed short int", "int16", "int16_t"],
    "u2": ["ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"],
    "i4": ["int", "signed int", "int32", "int32_t"],
    "u4": ["uint", "unsigned int", "uint32", "uint32_t"],
    "i8": ["longlong", "long long", "long long int", "signed long long", "int64", "int64_t"],
    "u8": ["ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"],
    "f4": ["float"],
    "f8": ["double"],
}


def voxels(dtype: str = "i2") -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 100, SHAPE_ZYX).astype(dtype)


def header(more: str = "", /, **changes: str | None) -> bytes:
    """A header with some fields changed, added, or (None) left out."""
    fields = PLAIN | {name.replace("_", " "): value for name, value in changes.items()}
    lines = [f"{name}: {value}\n" for name, value in fields.items() if value is not None]
    return "".join(["NRRD0004\n", *lines, more, "\n"]).encode()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
def test_every_type_order_and_place(
    tmp_path: Path, dtype: str, endian: str, encoding: str, suffix: str
) -> None:
    order = "<" if endian == "little" else ">"
    stored = voxels(dtype).astype(np.dtype(order + dtype)).tobytes()
    stored = gzip.compress(stored) if encoding == "gzip" else stored
    fields = {"type": TYPES[dtype][0], "endian": endian, "encoding": encoding}
    path = tmp_path / f"a{suffix}"
    if suffix == ".nrrd":
        path.write_bytes(header(**fields) + stored)
    else:
        path.write_bytes(header(**fields, data_file="ä b.raw"))
        (tmp_path / "ä b.raw").write_bytes(stored)
    same_as_itk(nrrd, path)


@pytest.mark.parametrize("name", [name for names in TYPES.values() for name in names])
def test_every_name_of_a_type(tmp_path: Path, name: str) -> None:
    (dtype,) = (dtype for dtype, names in TYPES.items() if name in names)
    (tmp_path / "a.nrrd").write_bytes(header(type=name) + voxels(dtype).tobytes())
    assert same_as_itk(nrrd, tmp_path / "a.nrrd").dtype == dtype


ODD: dict[str, dict[str, str | None]] = {
    **{
        space: {"space": space, "space directions": "(0.8,0.1,0) (0,0.9,0) (0,0.2,2.5)"}
        for space in (
            *("right-anterior-superior", "RAS", "left-anterior-superior", "LAS", "LPS"),
            *("scanner-xyz", "3D-right-handed", "3D-left-handed"),
        )
    },
    "spacings alone": {**NO_SPACE, "spacings": "0.8 0.9 2.5"},
    "negative spacings": {**NO_SPACE, "spacings": "-0.8 0.9 2.5"},
    "spacings that are not known": {**NO_SPACE, "spacings": "nan 0.9 NaN"},
    "no geometry": {**NO_SPACE, "kinds": None},
    "kinds of space": {"kinds": "space space space"},
    "kinds not known": {"kinds": "??? none domain"},
    "upper case": {"endian": "Little", "encoding": "RAW", "type": "Short"},
    "blanks in vectors": {"space directions": "( 0.8 , 0, 0) (0,0.9,0)(0,0,2.5)"},
    "units": {"space units": '"mm" "mm" "mm"', "thicknesses": "NaN NaN 5"},
    "plane": {**NO_SPACE, "kinds": None, "dimension": "2", "sizes": "12 10", "spacings": "2 3"},
    "4th dimension of 1": {
        "dimension": "4",
        "space": None,
        "space dimension": "4",
        "sizes": "6 5 4 1",
        "space directions": "(1,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,4)",
        "kinds": "domain domain domain domain",
        "space origin": "(1,2,3,4)",
    },
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("how", ["as it is", "CRLF", "comments"])
def test_odd_headers(tmp_path: Path, name: str, how: str) -> None:
    changes = dict(ODD[name])
    later = {key: changes.get(key, PLAIN[key]) for key in ("space directions", "space origin")}
    more = "".join(f"{key}: {value}\n" for key, value in later.items() if value is not None)
    more += "# a comment\nkey:=a value of: somebody's\n" if how == "comments" else ""
    head = header(more, **(changes | dict.fromkeys(later)))
    head = head.replace(b"\n", b"\r\n") if how == "CRLF" else head
    path = tmp_path / "a.nrrd"
    path.write_bytes(head + voxels().tobytes())
    same_as_itk(nrrd, path)


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr"])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_is_written(tmp_path: Path, dtype: str, suffix: str) -> None:
    path, written = tmp_path / "a.nrrd", tmp_path / f"b{suffix}"
    path.write_bytes(header(**ODD["RAS"]) + voxels().tobytes())
    scan = nrrd.read_header(path)
    nrrd.write(written, scan, np.dtype(dtype), [voxels(dtype)[:1], voxels(dtype)[1:]])
    assert same_as_itk(nrrd, written).dtype == dtype
    assert "space: RAS\n" in written.read_bytes().partition(b"\n\n")[0].decode()
    before, after = (SITK.ReadImage(str(name)) for name in (path, written))
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(after, what)() == getattr(before, what)(), what


def test_a_new_header_states_its_grid(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(header() + voxels().tobytes())
    grid = nrrd.read_header(tmp_path / "a.nrrd").grid
    again = nrrd.header_of(grid)
    nrrd.write(tmp_path / "b.nrrd", again, np.dtype(np.int16), [voxels()])
    found = same_as_itk(nrrd, tmp_path / "b.nrrd")
    np.testing.assert_allclose(found.grid.affine, grid.affine)
    expected = np.array([[0, -0.9, 0, 1.5], [0.8, 0, 0, -2.5], [0, 0, 2.5, 3.5], [0, 0, 0, 1]])
    np.testing.assert_allclose(LPS @ grid.affine, expected)


@pytest.mark.parametrize("skip", [0, 7, -1])
def test_bytes_before_or_behind_the_voxels(tmp_path: Path, skip: int) -> None:
    data = (b"1234567" if skip else b"") + voxels().tobytes() + (b"" if skip < 0 else b"behind")
    (tmp_path / "a.nrrd").write_bytes(header(byte_skip=str(skip)) + data)
    (tmp_path / "a.nhdr").write_bytes(header(byte_skip=str(skip), data_file="./a.raw"))
    (tmp_path / "a.raw").write_bytes(data)
    for name in ("a.nrrd", "a.nhdr"):
        same_as_itk(nrrd, tmp_path / name)


REFUSED: list[tuple[dict[str, str | None], str]] = [
    ({"type": "long"}, "holds long voxels"),
    ({"type": "block"}, "holds block voxels"),
    ({"type": None}, "holds  voxels"),
    ({"dimension": "1", "sizes": "120"}, "its dimension is 1"),
    ({"dimension": "9999"}, "its dimension is 9999"),
    ({"dimension": None}, "its dimension is ''"),
    ({"sizes": "6 5"}, "its sizes is '6 5'"),
    ({"sizes": "6 5 0"}, "its sizes is '6 5 0'"),
    ({"sizes": "6 5 -4"}, "its sizes is '6 5 -4'"),
    ({"sizes": "6 5 4_0"}, "its sizes is '6 5 4_0'"),
    ({"sizes": "600 500 400"}, "truncated, the header promises"),
    ({"sizes": "60000 50000 40000"}, "are no person's"),
    ({"endian": None}, "its endian is missing"),
    ({"endian": "middle"}, "its endian is middle"),
    ({"encoding": None}, "its encoding is missing"),
    ({"encoding": "bzip2"}, "its encoding is bzip2"),
    ({"encoding": "gzip"}, "gzip stream"),
    ({"kinds": "vector domain domain"}, "an axis is of kind vector"),
    ({"kinds": "domain domain RGB-color"}, "an axis is of kind RGB-color"),
    ({"space": "ears"}, "its space is ears"),
    ({"space": None}, "its space is not named"),
    ({"space": "right-anterior-superior-time"}, "its space is right-anterior-superior-time"),
    ({"space directions": "none (0,1,0) (0,0,1)"}, "its space directions cannot be ''"),
    ({"space directions": "(1,0,0) (0,1,0)"}, "its space directions are 2"),
    ({"space directions": "(1,0,0) (0,1,0) (0,0,inf)"}, "its space directions cannot be"),
    ({"space directions": "(1,0,0) (0,1,0) x (0,0,1)"}, "its space directions cannot be"),
    ({"space directions": "(1,0,0) (0,1,0) (0,0)"}, "its space directions cannot be"),
    ({"space directions": "(1,0,0) (0,1,0) (0,0,0)"}, "its axes span no volume"),
    ({"space origin": "(1,2,nan)"}, "its space origin cannot be"),
    ({**NO_SPACE, "spacings": "1 2"}, "its spacings cannot be"),
    ({**NO_SPACE, "spacings": "1 2 0"}, "its axes span no volume"),
    ({"byte skip": "-2"}, "its byte skip cannot be '-2'"),
    ({"byte skip": "1e308"}, "its byte skip cannot be '1e308'"),
    ({"line skip": "1"}, "its line skip of 1, byte skip of 0 cannot be"),
    ({"byte skip": "4", "encoding": "gzip"}, "its line skip of 0, byte skip of 4 cannot be"),
    ({"encoding": "\x1b[31mraw"}, "its encoding is \N{REPLACEMENT CHARACTER}[31mraw"),
    ({"colour": "red"}, "a line of its header cannot be 'colour: red'"),
    ({"dimension": "4", "sizes": "6 5 2 2", "kinds": None, **NO_SPACE}, "2 volumes"),
]


@pytest.mark.parametrize(("changes", "says"), REFUSED)
def test_what_is_refused(tmp_path: Path, changes: dict[str, str | None], says: str) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(header(**changes) + voxels().tobytes())
    with pytest.raises(VolumeError) as caught:
        nrrd.read(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: b"", "not an NRRD file"),
        (lambda data: b"hello", "not an NRRD file"),
        (lambda data: data.replace(b"NRRD0004", b"NRRD0006"), "not an NRRD file"),
        (lambda data: data[:60], "its header does not end"),
        (lambda data: data.replace(b"\n\n", b"\n" + b"#" * 2**17 + b"\n\n"), "header does not end"),
        (lambda data: data.replace(b"sizes: ", b"sizes "), "cannot be 'sizes 6 5 4'"),
        (lambda data: data.replace(b"\n\n", b"\nsizes: 1 1 1\n\n"), "cannot be 'sizes: 1 1 1'"),
        (lambda data: data[:-3], "truncated, the gzip stream ends early"),
        (lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], "gzip stream is damaged"),
    ],
)
def test_a_damaged_file_is_named(
    tmp_path: Path, spoil: Callable[[bytes], bytes], says: str
) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(spoil(header(encoding="gzip") + gzip.compress(voxels().tobytes())))
    with pytest.raises(VolumeError) as caught:
        nrrd.read(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
