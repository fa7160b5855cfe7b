"""NRRD (.nrrd, .nhdr with a file of voxels): read a volume, write one on the grid of another.

As ITK 5.4 reads it (itkNrrdImageIO.cxx over teem), less voxels in text, in several files or behind
lines to skip. Axes that are no space (colours, vectors, lists) are refused.
Format: https://teem.sourceforge.net/nrrd/format.html
"""

import math
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

_NAMES = {  # the first one is written
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("unsigned char", "uchar", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("unsigned short", "ushort", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("unsigned int", "uint", "uint32", "uint32_t"),
    "i8": (
        *("long long", "longlong", "long long int", "signed long long", "signed long long int"),
        *("int64", "int64_t"),
    ),
    "u8": (*("unsigned long long", "ulonglong", "unsigned long long int", "uint64", "uint64_t"),),
    "f4": ("float",),
    "f8": ("double",),
}
_TYPES = {name: dtype for dtype, names in _NAMES.items() for name in names}
# Of each space the steps to the patient's left, back and head; others count as ITK's own.
_SPACES = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1.0, -1.0, 1.0)),
    **dict.fromkeys(("left-posterior-superior", "lps"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("scanner-xyz", "3d-right-handed", "3d-left-handed"), (1.0, 1.0, 1.0)),
}
_IN_SPACE = ("domain", "space", "time", "none", "???")  # kinds of an axis that voxels lie along
_GEOMETRY = (
    *("dimension", "space", "space dimension", "sizes", "spacings", "thicknesses", "axis mins"),
    *("axis maxs", "centerings", "space directions", "kinds", "space origin"),
)
_OTHER = (
    *("type", "endian", "encoding", "data file", "byte skip", "line skip", "content", "number"),
    *("min", "max", "old min", "old max", "block size", "labels", "units", "space units"),
    *("sample units", "measurement frame"),
)
_ALIASES = {name.replace(" ", ""): name for name in (*_GEOMETRY, *_OTHER)} | {
    "centers": "centerings"
}
_MAGIC = re.compile(rb"NRRD000[1-5]\s*")
_VECTOR = re.compile(r"\s*(?:\(([^()]*)\)|none)")


class Header(TextHeader):
    """The header of an NRRD."""


def read_header(path: Path) -> Header:
    """Read a header, none of the voxels; raises VolumeError."""
    with opened(path) as file:
        return _described(_fields(file))


def read(path: Path) -> tuple[Header, Array]:
    """Read a volume; raises VolumeError, also where a checksum does not fit.

    Returns the header and the voxels (z, y, x), contiguous, writable and in native byte order.
    """
    with opened(path) as file:
        header = _described(_fields(file))
        return header, read_data(file, path, header)


def header_of(grid: Grid) -> Header:
    """A new header for a grid; that of the voxels' type and place is for `write`."""
    spacing, origin, direction = grid.lps()
    fields = {
        "type": "uint8",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, grid.shape_zyx[::-1])),
        "space directions": " ".join(map(_vector, (direction * spacing).T)),
        "kinds": "domain domain domain",
        "encoding": "raw",
        "space origin": _vector(origin),
    }
    return _described(fields)


def write(path: Path, header: Header, dtype: Dtype, planes: Iterable[Array]) -> None:
    """Write voxels of ``dtype``, gzipped, under the geometry of a header, in its own words.

    planes: parts (z, y, x) in order; each is written before the next is asked for. An .nhdr gets a
    .raw.gz beside it. Raises OSError, and what ``planes`` raises; ``path`` is then as it was.
    """
    fields = {"type": _NAMES[dtype.str[1:]][0]}
    fields |= {name: header.fields[name] for name in _GEOMETRY if name in header.fields}
    fields |= {"endian": "little", "encoding": "gzip"}
    head = "NRRD0004\n" + "".join(f"{name}: {value}\n" for name, value in fields.items())
    if path.suffix.lower() == ".nhdr":
        data = new_data_file(path, ".raw.gz", lambda other: read_header(other).data.file)
        named = f"{head}data file: {data.name}\n"
        write_detached(path, data, lambda _: named, planes, dtype, "gzip")
        return
    with replacing(path) as part, part.open("wb") as file:
        file.write(f"{head}\n".encode())
        write_voxels(file, b"", planes, dtype, "gzip")


def _described(fields: dict[str, str]) -> Header:
    ndim = parse_dimensions("dimension", fields.get("dimension", ""))
    for kind in fields.get("kinds", "").split():
        if kind.lower() not in _IN_SPACE:
            raise VolumeError(
                f"an axis is of kind {kind[:SHOWN]}, expected one number a voxel; split it"
            )
    sizes = parse_sizes("sizes", fields.get("sizes", ""), ndim)
    axes, origin = _axes(fields, ndim)
    spacing = tuple(_length(step) for step in axes.T.tolist())
    return Header(fields, sizes, spacing, axes, origin, _dtype(fields), _data(fields))


def _fields(file: BufferedReader) -> dict[str, str]:
    """The header's fields by their usual names; the file is left at the first byte behind it."""
    if not _MAGIC.fullmatch(file.readline(HEADER_BYTES)):
        raise VolumeError("not an NRRD file; export it again")
    fields: dict[str, str] = {}
    while line := file.readline(HEADER_BYTES).decode(errors="replace"):
        text = line.strip()
        if file.tell() > HEADER_BYTES:
            raise VolumeError(f"its header does not end; {WRITE_AGAIN}")
        if not text:
            return fields
        name, separator, value = text.partition(":")
        if text.startswith("#") or value.startswith("="):  # a comment, or something else's own
            continue
        name = _ALIASES.get(name.lower().replace(" ", ""), "")
        if not separator or not name or name in fields:
            raise VolumeError(f"a line of its header cannot be {text[:SHOWN]!r}; {WRITE_AGAIN}")
        fields[name] = value.strip()
    if "data file" not in fields:
        raise VolumeError(f"its header does not end; {WRITE_AGAIN}")
    return fields


def _axes(fields: dict[str, str], ndim: int) -> tuple[Array, Array]:
    """The steps along the axes, as columns, and the origin, mm, in LPS+."""
    if "space directions" not in fields:
        words = fields.get("spacings", " ".join(["nan"] * ndim)).lower().split()
        known = " ".join("1" if word == "nan" else word for word in words)
        return np.diag(parse_numbers("spacings", known, ndim)), np.zeros(ndim)
    flips = np.ones(ndim)
    space = fields.get("space", "").lower()
    if space in _SPACES and ndim == 3:
        flips[:] = _SPACES[space]
    elif space or fields.get("space dimension") != str(ndim):
        raise VolumeError(
            f"its space is {space[:SHOWN] or 'not named'}, expected left-posterior-superior"
            f" and {ndim} dimensions; {WRITE_AGAIN}"
        )
    rows = _vectors("space directions", fields["space directions"], ndim, ndim)
    zero = f"({','.join(['0'] * ndim)})"
    (origin,) = _vectors("space origin", fields.get("space origin", zero), 1, ndim)
    return (np.array(rows) * flips).T, np.array(origin) * flips


def _vectors(name: str, text: str, count: int, length: int) -> list[tuple[float, ...]]:
    if _VECTOR.sub("", text).strip():
        raise VolumeError(f"its {name} cannot be {text[:SHOWN]!r}; {WRITE_AGAIN}")
    found = [vector.replace(",", " ") for vector in _VECTOR.findall(text)]
    if len(found) != count:
        raise VolumeError(f"its {name} are {len(found)}, expected {count}; {WRITE_AGAIN}")
    return [parse_numbers(name, vector, length) for vector in found]


def _dtype(fields: dict[str, str]) -> Dtype:
    kind = fields.get("type", "").lower()
    if kind not in _TYPES:
        raise VolumeError(f"holds {kind[:SHOWN]} voxels; write whole numbers, such as uint8")
    endian = fields.get("endian", "" if _TYPES[kind][1] > "1" else "little").lower()
    if endian not in ("little", "big"):
        raise VolumeError(
            f"its endian is {endian[:SHOWN] or 'missing'}, expected little or big; {WRITE_AGAIN}"
        )
    return np.dtype((">" if endian == "big" else "<") + _TYPES[kind])


def _data(fields: dict[str, str]) -> Data:
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise VolumeError(
            f"its encoding is {encoding[:SHOWN] or 'missing'}; write it with encoding raw or gzip"
        )
    packing: Packing | None = None if encoding == "raw" else "gzip"
    lines, skip = (parse_skip(name, fields.get(name, "0")) for name in ("line skip", "byte skip"))
    if lines or (skip and packing):
        raise VolumeError(f"its line skip of {lines}, byte skip of {skip} cannot be; {WRITE_AGAIN}")
    return Data(fields.get("data file"), packing, skip)


def _length(step: list[float]) -> float:
    """As teem computes it, to the last bit."""
    squares = 0.0
    for part in step:
        squares += part * part
    return math.sqrt(squares)


def _vector(numbers: Iterable[float]) -> str:
    return f"({','.join(repr(float(number) + 0.0) for number in numbers)})"
