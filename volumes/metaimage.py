"""MetaImage (.mha, .mhd with .raw or .zraw): read a volume, write one on the grid of another.

As ITK 5.4 reads it (MetaIO's metaImage.cxx), less voxels in text or in several files. ITK follows a
header to any file of the machine, and some headers end its process; here voxels lie in the header's
folder, and what is wrong with a header is one line. Format:
https://itk.org/Wiki/ITK/MetaIO/Documentation
"""

import re
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

import numpy as np

from volumes.errors import VolumeError
from volumes.files import replacing
from volumes.grid import Grid
from volumes.streams import WRITE_AGAIN, Array, Dtype, Packing, opened, write_voxels
from volumes.text_header import (
    HEADER_BYTES,
    SHOWN,
    Data,
    TextHeader,
    new_data_file,
    parse_dimensions,
    parse_numbers,
    parse_sizes,
    parse_skip,
    read_data,
    write_detached,
)

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # wherever it was written
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NAMES = {np.dtype(name): met for met, name in _TYPES.items() if "LONG" not in met}
_NAMES |= {np.dtype("i8"): "MET_LONG_LONG", np.dtype("u8"): "MET_ULONG_LONG"}
_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN = ("Offset", "Position", "Origin")
_SPACING = ("ElementSpacing", "ElementSize")
_GEOMETRY = (*_MATRIX, *_ORIGIN, "CenterOfRotation", "AnatomicalOrientation", *_SPACING, "DimSize")
_FIELD = re.compile(r"([^=:]+?)\s*[=:]\s*(.*)")
_SIZE_WIDTH = 20  # of the number that is known only once the voxels are written


class Header(TextHeader):
    """The header of a MetaImage."""


def read_header(path: Path, *, strict: bool = False) -> Header:
    """Read a header, none of the voxels; raises VolumeError.

    strict: as a judge reads, a volume of three dimensions in this one file.
    """
    with opened(path) as file:
        return _parsed(file, strict)


def read(path: Path, *, strict: bool = False) -> tuple[Header, Array]:
    """Read a volume; raises VolumeError, also where a checksum does not fit.

    Returns the header and the voxels (z, y, x), contiguous, writable and in native byte order.
    Little more is unpacked than the header asks for. strict: as for `read_header`.
    """
    with opened(path) as file:
        header = _parsed(file, strict)
        return header, read_data(file, path, header)


def header_of(grid: Grid) -> Header:
    """A new header for a grid; that of the voxels' type and place is for `write`."""
    spacing, origin, direction = grid.lps()
    fields = {
        "NDims": "3",
        "TransformMatrix": _words(direction.T.ravel()),
        "Offset": _words(origin),
        "ElementSpacing": _words(spacing),
        "DimSize": " ".join(map(str, grid.shape_zyx[::-1])),
        "ElementType": "MET_UCHAR",
        "ElementDataFile": "LOCAL",
    }
    return _described(fields)


def write(path: Path, header: Header, dtype: Dtype, planes: Iterable[Array]) -> None:
    """Write voxels of ``dtype``, compressed, under the geometry of a header, in its own words.

    planes: parts (z, y, x) in order; each is written before the next is asked for. An .mhd gets a
    .zraw beside it. Raises OSError, and what ``planes`` raises; ``path`` is then as it was.
    """
    if path.suffix.lower() == ".mhd":
        data = new_data_file(path, ".zraw", lambda other: read_header(other).data.file)

        def head(size: int) -> str:
            return _head(header, dtype, size, data.name)

        write_detached(path, data, head, planes, dtype, "zlib")
        return
    with replacing(path) as part, part.open("wb") as file:
        file.write(_head(header, dtype, 0, "LOCAL").encode())
        size = write_voxels(file, b"", planes, dtype, "zlib")
        file.seek(0)
        file.write(_head(header, dtype, size, "LOCAL").encode())


def _head(header: Header, dtype: Dtype, size: int, data: str) -> str:
    fields = {
        "ObjectType": "Image",
        "NDims": str(len(header.sizes)),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": f"{size:<{_SIZE_WIDTH}}",  # ITK reads nothing without it
        **{name: header.fields[name] for name in _GEOMETRY if name in header.fields},
        "ElementType": _NAMES[dtype.newbyteorder("=")],
        "ElementDataFile": data,
    }
    return "".join(f"{name} = {value}\n" for name, value in fields.items())


def _parsed(file: BufferedReader, strict: bool) -> Header:
    fields = _fields(file)
    expected = {"NDims": "3", "ElementDataFile": "LOCAL"} if strict else {}
    for name, value in ({"ElementNumberOfChannels": "1"} | expected).items():
        found = fields.get(name, "1")
        if found != value:
            raise VolumeError(
                f"its {name} is {found[:SHOWN]}, expected {value}: one file, one number a voxel,"
                f" 3 dimensions; {WRITE_AGAIN}"
            )
    if not _truth(fields, "BinaryData", default="True"):
        raise VolumeError(f"its BinaryData is False, expected True; {WRITE_AGAIN}")
    return _described(fields)


def _described(fields: dict[str, str]) -> Header:
    ndim = parse_dimensions("NDims", fields.get("NDims", ""))
    sizes = parse_sizes("DimSize", fields.get("DimSize", ""), ndim)
    steps = _numbers(fields, _SPACING, (1.0,) * ndim)
    matrix = _numbers(fields, _MATRIX, tuple(np.eye(ndim).ravel()))
    axes = np.reshape(matrix, (ndim, ndim)).T * steps  # a row there is an axis
    origin = np.array(_numbers(fields, _ORIGIN, (0.0,) * ndim))
    spacing = tuple(abs(step) for step in steps)
    return Header(fields, sizes, spacing, axes, origin, _dtype(fields), _data(fields))


def _fields(file: BufferedReader) -> dict[str, str]:
    """The header's fields; the file is left at the first byte of what is behind them."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields:
        line = file.readline(HEADER_BYTES)
        text = line.decode(errors="replace").strip()
        field = _FIELD.fullmatch(text)
        if not line or file.tell() > HEADER_BYTES or (text and not field):
            raise VolumeError("not a MetaImage file; write it as .mha")
        if field:
            fields[field[1]] = field[2]
    return fields


def _dtype(fields: dict[str, str]) -> Dtype:
    kind = fields.get("ElementType", "")
    if kind not in _TYPES:
        raise VolumeError(f"holds {kind[:SHOWN]} voxels; write whole numbers, such as uint8")
    swapped = any(_truth(fields, n) for n in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    return np.dtype((">" if swapped else "<") + _TYPES[kind])


def _data(fields: dict[str, str]) -> Data:
    name = fields["ElementDataFile"]
    local = name in ("LOCAL", "Local", "local")
    packing: Packing | None = "zlib" if _truth(fields, "CompressedData") else None
    skip = parse_skip("HeaderSize", fields.get("HeaderSize", "0"))
    if skip and (packing or local):
        raise VolumeError(f"its HeaderSize cannot be {skip}; {WRITE_AGAIN}")
    return Data(None if local else name, packing, skip)


def _numbers(
    fields: dict[str, str], names: Iterable[str], default: tuple[float, ...]
) -> tuple[float, ...]:
    """The first of some fields that is there; raises VolumeError."""
    for name in names:
        if name in fields:
            return parse_numbers(name, fields[name], len(default))
    return default


def _truth(fields: dict[str, str], name: str, default: str = "False") -> bool:
    text = fields.get(name, default)
    if text.lower() not in _TRUTH:
        raise VolumeError(f"its {name} is {text[:SHOWN]}, expected True or False; {WRITE_AGAIN}")
    return _TRUTH[text.lower()]


def _words(numbers: Iterable[float]) -> str:
    return " ".join(repr(float(number) + 0.0) for number in numbers)
