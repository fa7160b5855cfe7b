"""One-file NIfTI-1 and NIfTI-2 (.nii, .nii.gz): read a volume, write one on the grid of another."""

import math
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from volumes.files import replacing
from volumes.nifti_header import CODES, MAGIC, NIFTI1, Header, header_of, parse
from volumes.streams import (
    GZIP_MAGIC,
    Array,
    Dtype,
    Packing,
    Stream,
    Unpacked,
    check_end,
    most_unpacked,
    opened,
    read_voxels,
    skip,
    write_voxels,
    zero_nonfinite,
)

__all__ = [
    "Header",
    "as_itk",
    "as_nibabel",
    "copy_nameless",
    "header_of",
    "read",
    "read_header",
    "write",
]

_TEXTS = {"analyze", "descrip", "aux_file", "intent_name", "unused"}  # free, in either version
_EPSILON = float(np.finfo(np.float64).eps)


def read_header(path: Path, *, strict: bool = False) -> Header:
    """Read the header of a NIfTI file, gzipped or not, none of its voxels; raises VolumeError.

    strict: refuse what a mask of a volume does not need, see `Header.check_strictly`.
    """
    with opened(path) as file:
        return _parsed(_unpacked(file)[0], strict)


def read(path: Path, *, strict: bool = False) -> tuple[Header, Array]:
    """Read a NIfTI file of one volume, gzipped or not.

    Returns the header and the voxels (z, y, x) as they are stored, contiguous, writable and in
    native byte order. Little more is unpacked than the header asks for. strict: as for
    `read_header`. Raises VolumeError, also where a checksum does not fit.
    """
    with opened(path) as file:
        stream, most_bytes = _unpacked(file)
        header = _parsed(stream, strict)
        skip(stream, min(header.offset, most_bytes) - header.fields.dtype.itemsize)
        voxels = read_voxels(stream, header.shape_zyx, header.dtype, most_bytes - header.offset)
        if isinstance(stream, Unpacked):
            check_end(stream)
    return header, voxels


def as_itk(header: Header, stored: Array) -> tuple[Array, int]:
    """The voxels that ITK gives, and how many of the stored ones were not finite.

    Those are 0 before the rescale. Where the header asks for one, ITK computes it in double from
    values that went through float32, and takes a slope of 0 for 1; the result is float32.
    """
    replaced = zero_nonfinite(stored)
    slope, intercept = float(header.fields["scl_slope"]), float(header.fields["scl_inter"])
    if not math.isfinite(slope) or abs(slope) < _EPSILON:
        slope = 1.0
    if not math.isfinite(intercept):
        intercept = 0.0
    if abs(slope - 1) <= _EPSILON and abs(intercept) <= _EPSILON:
        return stored, replaced
    through = np.float64 if stored.dtype == np.float64 else np.float32
    return _rescaled(stored, slope, intercept, through), replaced


def as_nibabel(header: Header, stored: Array) -> tuple[Array, int]:
    """The same as nibabel gives them: in double from the stored values on, by the standard."""
    replaced = zero_nonfinite(stored)
    if header.scaling == (1.0, 0.0):
        return stored, replaced
    return _rescaled(stored, *header.scaling, np.float64), replaced


def _rescaled(
    stored: Array, slope: float, intercept: float, through: type[np.floating[Any]]
) -> Array:
    rescaled = np.empty(stored.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for target, plane in zip(rescaled, stored, strict=True):
            target[...] = plane.astype(through).astype(np.float64) * slope + intercept
    return rescaled


def write(path: Path, header: Header, dtype: Dtype, planes: Iterable[Array]) -> None:
    """Write voxels of ``dtype`` under the geometry of a header; gzipped if the name ends in .gz.

    planes: parts (z, y, x) in order; each is written before the next is asked for. Dimensions,
    qform, sform, codes, pixdim, units and texts are the header's own bytes where the standard
    allows them; only what describes the voxels (type, scaling, offset, display range, intent)
    changes. Extensions go. Raises OSError, and what ``planes`` raises; ``path`` is then as it was.
    """
    fields = header.repaired.fields
    fields["datatype"] = CODES[dtype.newbyteorder("=")]
    fields["bitpix"] = 8 * dtype.itemsize
    fields["scl_slope"] = 1
    fields["scl_inter"] = 0
    fields["cal"] = 0
    fields["intent_code"] = 0
    fields["intent_p"] = 0
    fields["intent_name"] = np.void(bytes(16))
    if fields.dtype == NIFTI1:
        fields["gl"] = 0
    packing: Packing | None = "gzip" if path.name.lower().endswith(".gz") else None
    with replacing(path) as part, part.open("wb") as file:
        write_voxels(file, _head(fields), planes, dtype, packing)


def copy_nameless(source: Path, to: Path) -> None:
    """Copy a volume into a .nii.gz that does not say whose it is.

    Texts of the header, extensions, what is behind the voxels and the name within the gzip stream
    go; the voxels and all other fields stay. Raises VolumeError, OSError.
    """
    header, voxels = read(source)
    fields = header.fields.copy()
    for name in _TEXTS & set(fields.dtype.names or ()):
        fields[name] = np.void(bytes(fields.dtype[name].itemsize))
    with replacing(to) as part, part.open("wb") as file:
        write_voxels(file, _head(fields), [voxels], voxels.dtype, "gzip")


def _head(fields: Array) -> bytes:
    """The bytes before the voxels, of which the last four say that there are no extensions."""
    layout = fields.dtype
    fields["sizeof_hdr"] = layout.itemsize
    fields["magic"] = np.void(MAGIC[layout])
    fields["vox_offset"] = layout.itemsize + 4
    return fields.tobytes() + bytes(4)


def _unpacked(file: BufferedReader) -> tuple[Stream, int]:
    """The content of a file, and how many bytes that may be at most."""
    # The first bytes decide, as in zlib: a .nii.gz that was never compressed is common enough.
    gzipped = file.read(2) == GZIP_MAGIC
    size = file.seek(0, 2)
    file.seek(0)
    if gzipped:
        return Unpacked(file, "gzip"), most_unpacked(size)
    return file, size


def _parsed(stream: Stream, strict: bool) -> Header:
    header = parse(stream)
    if strict:
        header.check_strictly()
    header.check()
    return header
