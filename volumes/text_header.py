"""What MetaImage and NRRD share: fields in words, and voxels that may be in another file."""

import errno
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np

from volumes.errors import VolumeError
from volumes.files import replacing
from volumes.grid import LPS, Grid, check_extent
from volumes.streams import (
    WRITE_AGAIN,
    Array,
    Dtype,
    Packing,
    Unpacked,
    check_end,
    most_unpacked,
    opened,
    read_voxels,
    write_voxels,
)

HEADER_BYTES = 2**16
SHOWN = 100  # characters of a file's own words in a message
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIZE = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
_SKIP = re.compile(r"-1|\d{1,9}", re.ASCII)
_MOST_DIMENSIONS = 5


@dataclass(frozen=True)
class Data:
    """Where the voxels are."""

    file: str | None  # beside the header, by its own words; None: behind the header
    packing: Packing | None
    skip: int = 0  # bytes before the voxels; -1: they are the last of the file


@dataclass(frozen=True)
class TextHeader:
    """What a header says, and its fields by name. Vectors: a number for each dimension, x first.

    spacing_xyz: mm, positive. axes: a column for each dimension, as long as a step along it, and
    origin, in ITK's LPS+; mm. dtype: in the file's byte order.
    """

    fields: dict[str, str]
    sizes: tuple[int, ...]
    spacing_xyz: tuple[float, ...]
    axes: Array
    origin: Array
    dtype: Dtype
    data: Data

    def __post_init__(self) -> None:
        """Raise VolumeError unless the axes span a volume, and no larger one than a person."""
        with np.errstate(all="ignore"):
            volume = np.linalg.det(self.axes)
        if not abs(volume) > 0:  # nor NaN
            raise VolumeError(
                f"its axes span no volume, with steps of {self.spacing_xyz} mm; {WRITE_AGAIN}"
            )
        check_extent(self.sizes[:3], self.spacing_xyz[:3])

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """The shape (z, y, x); a plane has one slice. Raises VolumeError for several volumes."""
        volumes = math.prod(self.sizes[3:])
        if volumes > 1:
            raise VolumeError(f"{volumes} volumes in one file, expected 1; split it")
        x, y, z = (*self.sizes[:3], 1)[:3]
        return z, y, x

    @property
    def spacing(self) -> tuple[float, ...]:
        """Spacing in mm in the order (z, y, x), or (y, x) for a two-dimensional image."""
        return self.spacing_xyz[2::-1]

    @property
    def grid(self) -> Grid:
        """Where the voxels lie; a plane is one slice of 1 mm. Raises VolumeError as `shape_zyx`."""
        ndim = min(len(self.sizes), 3)
        affine = np.eye(4)
        affine[:ndim, :ndim] = self.axes[:ndim, :ndim]
        affine[:ndim, 3] = self.origin[:ndim]
        affine = LPS @ affine
        z, y, x = (1.0, *self.spacing)[-3:]
        return Grid(self.shape_zyx, (z, y, x), (affine,), affine)


def parse_numbers(name: str, text: str, count: int) -> tuple[float, ...]:
    """So many finite numbers of a field; raises VolumeError."""
    words = text.split()
    numbers = tuple(float(word) for word in words if _NUMBER.fullmatch(word))
    if not len(words) == len(numbers) == count or not all(map(math.isfinite, numbers)):
        raise VolumeError(
            f"its {name} cannot be {text[:SHOWN]!r}, expected {count} numbers; {WRITE_AGAIN}"
        )
    return numbers


def parse_sizes(name: str, text: str, count: int) -> tuple[int, ...]:
    """So many sizes, each at least 1; raises VolumeError."""
    sizes = tuple(int(word) for word in text.split() if _SIZE.fullmatch(word))
    if not len(text.split()) == len(sizes) == count:
        raise VolumeError(
            f"empty or damaged dimensions: its {name} is {text[:SHOWN]!r}; {WRITE_AGAIN}"
        )
    return sizes


def parse_dimensions(name: str, text: str) -> int:
    """How many dimensions an image has; raises VolumeError for a line, and more than ITK takes."""
    (ndim,) = parse_sizes(name, text, 1)
    if not 2 <= ndim <= _MOST_DIMENSIONS:
        raise VolumeError(f"its {name} is {ndim}, expected 3; supply a CT volume")
    return ndim


def parse_skip(name: str, text: str) -> int:
    """How many bytes lie before the voxels, as in `Data`; raises VolumeError."""
    if not _SKIP.fullmatch(text):
        raise VolumeError(f"its {name} cannot be {text[:SHOWN]!r}; {WRITE_AGAIN}")
    return int(text)


def read_data(file: BufferedReader, path: Path, header: TextHeader) -> Array:
    """Read the voxels of the header at ``path``, behind which ``file`` stands; raises VolumeError.

    They come as (z, y, x), contiguous, writable and in native byte order. Little more is unpacked
    than the header asks for.
    """
    name = header.data.file
    if name is None:
        return _read_data(file, header)
    try:
        with opened(_beside(path, name)) as other:
            return _read_data(other, header)
    except VolumeError as error:
        raise VolumeError(f"{name[:SHOWN]}: {error}") from None


def _read_data(file: BufferedReader, header: TextHeader) -> Array:
    data, shape_zyx = header.data, header.shape_zyx
    start = file.tell() + data.skip
    size = file.seek(0, os.SEEK_END)
    if data.skip < 0:
        start = max(size - math.prod(shape_zyx) * header.dtype.itemsize, 0)
    file.seek(start)
    if data.packing is None:
        return read_voxels(file, shape_zyx, header.dtype, size - start)
    stream = Unpacked(file, data.packing)
    voxels = read_voxels(stream, shape_zyx, header.dtype, most_unpacked(size - start))
    check_end(stream)
    return voxels


def _beside(header: Path, name: str) -> Path:
    """The file of voxels that a header names; raises VolumeError unless it is one beside it."""
    relative = Path(name)
    if "%" in name or name.split()[:1] == ["LIST"]:
        raise VolumeError("voxels in several files; write them into one")
    if not relative.name or relative.is_absolute() or ".." in relative.parts or "\0" in name:
        raise VolumeError("not a file in the header's folder; copy the voxels there")
    return header.parent / relative


def new_data_file(header: Path, suffix: str, named: Callable[[Path], str | None]) -> Path:
    """Where to write the voxels of a header that is about to be written, or written anew.

    named: the data file that a header names, by its own words. What is there already is taken only
    if the header that is to be replaced names it: it may hold the voxels of the scan.
    """
    usual = header.with_name(header.name[: -len(header.suffix)] + suffix)
    if not usual.exists():
        return usual
    try:
        known = header.exists() and named(header) == usual.name
    except VolumeError:
        known = False
    return usual if known else usual.with_name(f"{header.stem}-mask{suffix}")


def write_detached(
    path: Path,
    data: Path,
    head: Callable[[int], str],
    planes: Iterable[Array],
    dtype: Dtype,
    packing: Packing,
) -> None:
    """Write voxels and, once they are in place, the header that names them; raises OSError.

    head: the header, from how many bytes the packed voxels have.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with replacing(path) as part:
        with replacing(data) as data_part, data_part.open("wb") as file:
            size = write_voxels(file, b"", planes, dtype, packing)
        part.write_bytes(head(size).encode())
