"""MetaImage (.mha), the format of Grand Challenge: write a scan, read a mask that may be hostile.

ITK's reader follows a header that names another file, which could be the judge's own reference, and
reads whatever size a header claims. So masks are read here, in one file and no further than asked.
"""

import math
import re
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from evaluation.errors import EvaluationError
from evaluation.volumes import CHUNK_BYTES, Header, Volume

HEADER_BYTES = 2**16
FIELD = re.compile(rb"\s*(\w+)\s*[=:]\s*(.*?)\s*")
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # MetaImage's axes in NIfTI's, and the other way round


def grid_of(header: Header) -> Header:
    """Return a NIfTI header's grid as MetaImage states it: by one affine, spacing included."""
    spacing = np.linalg.norm(header.affine[:3, :3], axis=0)
    return _header(header.path, header.shape_zyx, spacing, header.affine, header.dtype)


def write(path: Path, volume: Volume) -> None:
    """Write a volume, compressed. float64, which NIfTI's scaling gives, becomes float32."""
    voxels = volume.voxels_zyx
    image = sitk.GetImageFromArray(voxels.astype("f4") if voxels.dtype == "f8" else voxels)
    affine = LPS @ volume.header.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=True)


def read_header(path: Path) -> Header:
    """Read the header of a .mha file, none of its voxels.

    Raises EvaluationError, which leaves the file's name to the caller, when it is not one volume
    with one number a voxel in 3 dimensions, or when its voxels are in another file.
    """
    with path.open("rb") as stream:
        return _described(path, _fields(stream))


def read(path: Path) -> Volume:
    """Read a .mha file; raises EvaluationError as `read_header`, or when it is damaged."""
    with path.open("rb") as stream:
        fields = _fields(stream)
        header = _described(path, fields)
        size = header.dtype.itemsize * math.prod(header.shape_zyx)
        compressed = fields.get("CompressedData", "False").lower() == "true"
        content = _inflated(stream, size) if compressed else stream.read(size)
    if len(content) < size:
        raise EvaluationError(f"truncated: {len(content)} of {size} bytes; write the file again")
    voxels: NDArray[np.generic] = np.frombuffer(content, header.dtype).reshape(header.shape_zyx)
    return Volume(header, voxels)


def _fields(stream: IO[bytes]) -> dict[str, str]:
    """Return the header's fields, and leave the stream at the first byte of the voxels."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields:
        line = stream.readline(HEADER_BYTES)
        match = FIELD.fullmatch(line)
        if match is None or stream.tell() > HEADER_BYTES:
            raise EvaluationError("not a MetaImage file; write the mask as .mha")
        fields[match[1].decode("ascii", "replace")] = match[2].decode("ascii", "replace")
    return fields


def _described(path: Path, fields: dict[str, str]) -> Header:
    def numbers(default: str, *names: str) -> list[float]:
        text = next((fields[name] for name in names if name in fields), default)
        try:
            found = [float(word) for word in text.split()]
        except ValueError:
            found = []
        if len(found) != len(default.split()) or not all(map(math.isfinite, found)):
            raise EvaluationError(f"its {names[0]} cannot be {text!r}")
        return found

    for name, allowed in {
        "ElementDataFile": ("LOCAL",),
        "NDims": ("3",),
        "ElementNumberOfChannels": ("1", None),
        "BinaryData": ("True", None),
        "HeaderSize": ("0", None),
    }.items():
        if fields.get(name) not in allowed:
            raise EvaluationError(
                f"its {name} is {fields.get(name)}; expected {allowed[0]}: one file,"
                " one number a voxel, 3 dimensions"
            )
    shape_xyz = numbers("0 0 0", "DimSize")
    spacing_xyz = np.array(numbers("1 1 1", "ElementSpacing"))
    if not all(size >= 1 and size == int(size) for size in shape_xyz) or min(spacing_xyz) <= 0:
        raise EvaluationError(
            f"cannot have {fields.get('DimSize')} voxels of {spacing_xyz.tolist()} mm"
        )
    if fields.get("ElementType") not in TYPES:
        raise EvaluationError(
            f"holds {fields.get('ElementType')} voxels; write whole numbers, as uint8"
        )
    big = "true" in (
        fields.get(name, "").lower() for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
    )
    affine = np.eye(4)
    axes = numbers("1 0 0 0 1 0 0 0 1", "TransformMatrix", "Rotation", "Orientation")
    affine[:3, :3] = np.reshape(axes, (3, 3)).T * spacing_xyz  # a row there is an axis
    affine[:3, 3] = numbers("0 0 0", "Offset", "Position", "Origin")
    x, y, z = (int(size) for size in shape_xyz)
    dtype = np.dtype((">" if big else "<") + TYPES[fields["ElementType"]])
    return _header(path, (z, y, x), spacing_xyz, LPS @ affine, dtype)


def _header(
    path: Path,
    shape_zyx: tuple[int, int, int],
    spacing_xyz: NDArray[np.float64],
    affine: NDArray[np.float64],
    dtype: np.dtype[np.generic],
) -> Header:
    x, y, z = spacing_xyz.tolist()
    return Header(path, shape_zyx, (z, y, x), (affine,), affine, dtype)


def _inflated(stream: IO[bytes], size: int) -> bytes:
    """Return at most `size` bytes; the checksum is compared if the stream ends there."""
    inflate = zlib.decompressobj()
    content = bytearray()
    try:
        while len(content) <= size and not inflate.eof:
            piece = inflate.unconsumed_tail or stream.read(CHUNK_BYTES)
            if not piece:
                break
            content += inflate.decompress(piece, size + 1 - len(content))
    except zlib.error as error:
        raise EvaluationError(f"damaged ({error}); write the file again") from error
    return bytes(content[:size])
