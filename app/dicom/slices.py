"""One slice of a CT: what its file says, and whether that can be.

Attributes and their meaning: DICOM PS3.3, C.7.6.2 (image plane), C.7.6.3 (pixels), C.8.2.1 (CT).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.dicom.files import shown
from volumes.errors import VolumeError
from volumes.grid import DIRECTION_TOLERANCE, Matrix
from volumes.streams import WRITE_AGAIN, most_unpacked

if TYPE_CHECKING:
    from pydicom import Dataset

_CT = "1.2.840.10008.5.1.4.1.1.2"
_ENHANCED = {f"{_CT}.1": "Enhanced CT", f"{_CT}.2": "Legacy Converted Enhanced CT"}
KEYWORDS = (
    *("SOPClassUID", "SeriesInstanceUID", "SeriesDescription", "ImageType"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"),
    *("SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept"),
)
_MOST_PIXELS = 2**26  # of a slice: 8192 x 8192


@dataclass(frozen=True)
class Slice:
    """One slice of a CT: a file with one image.

    position: of its first pixel, axes: rows (x) and columns (y) as unit vectors, in DICOM's LPS+
    millimetres; spacing: x, y. bits: stored ones; what is above them is no part of a pixel.
    """

    file: Path
    position: Matrix
    axes: Matrix
    spacing: tuple[float, float]
    shape: tuple[int, int]
    bits: int
    signed: bool
    slope: float
    intercept: float

    @property
    def normal(self) -> Matrix:
        """The unit vector along which slices are counted."""
        return np.cross(*self.axes)

    @property
    def height(self) -> float:
        """Of the plane along the normal, mm."""
        return float(self.normal @ self.position)


def is_slice(header: Dataset) -> bool:
    """Whether it is a CT's, and no localiser; raises VolumeError where it says nothing of it."""
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    if not kind:
        raise VolumeError(f"does not say what it is (SOPClassUID); {WRITE_AGAIN}")
    if kind not in (_CT, *_ENHANCED) or "LOCALIZER" in (header.get("ImageType") or ()):
        return False
    if not header.get("SeriesInstanceUID"):
        raise VolumeError(f"has no SeriesInstanceUID, which every slice needs; {WRITE_AGAIN}")
    return True


def slice_of(file: Path, header: Dataset) -> Slice:
    """What a header says of its slice; raises VolumeError for what no slice of a CT can be."""
    kind = header.get("SOPClassUID")
    if kind in _ENHANCED:
        raise VolumeError(
            f"{_ENHANCED[kind]} (several slices in one file) is not read; convert it to NIfTI, or"
            " to one slice a file"
        )
    position = np.array(_numbers(header, "ImagePositionPatient", 3))
    axes = np.reshape(_numbers(header, "ImageOrientationPatient", 6), (2, 3))
    spacing_y, spacing_x = _numbers(header, "PixelSpacing", 2)
    rows, columns = (int(*_numbers(header, keyword, 1)) for keyword in ("Rows", "Columns"))
    samples, allocated, bits, high = (
        int(*_numbers(header, keyword, 1))
        for keyword in ("SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit")
    )
    if np.abs(axes @ axes.T - np.eye(2)).max() > 10 * DIRECTION_TOLERANCE:
        raise VolumeError(f"its ImageOrientationPatient is no two axes; {WRITE_AGAIN}")
    if not min(spacing_x, spacing_y) > 0:
        raise VolumeError(f"its PixelSpacing is {spacing_y:g} x {spacing_x:g} mm; {WRITE_AGAIN}")
    if samples != 1 or allocated not in (8, 16, 32) or not 0 < bits == high + 1 <= allocated:
        raise VolumeError(
            f"has {samples} numbers a pixel, {bits} of {allocated} bits up to bit {high}; expected"
            f" one, of 8, 16 or 32 bits; {WRITE_AGAIN}"
        )
    _check_size(file, header, rows, columns, allocated)
    return Slice(
        file,
        position,
        axes / np.linalg.norm(axes, axis=1, keepdims=True),
        (spacing_x, spacing_y),
        (rows, columns),
        bits,
        _numbers(header, "PixelRepresentation", 1) == (1.0,),
        *_numbers(header, "RescaleSlope", 1),
        *_numbers(header, "RescaleIntercept", 1),
    )


def _check_size(file: Path, header: Dataset, rows: int, columns: int, allocated: int) -> None:
    """Raise VolumeError where a file cannot hold its pixels, before there is room for them."""
    packed = file.stat().st_size
    most = most_unpacked(packed) if _is_compressed(header) else packed
    if not 0 < rows * columns <= _MOST_PIXELS or rows * columns * allocated // 8 > most:
        raise VolumeError(
            f"promises {rows} x {columns} pixels (Rows, Columns), more than its {packed} bytes can"
            f" be or none; {WRITE_AGAIN}"
        )


def _is_compressed(header: Dataset) -> bool:
    """Whether its pixels are; raises VolumeError where no decoder for them is installed."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import AllTransferSyntaxes, JPEGExtended12Bit

    syntax = header.file_meta.get("TransferSyntaxUID", "")
    if syntax not in AllTransferSyntaxes:
        raise VolumeError(f"its TransferSyntaxUID is {shown(syntax)}, not of DICOM; {WRITE_AGAIN}")
    if not syntax.is_compressed:
        return False
    what = f"its pixels are packed as {syntax.name} ({syntax})"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise VolumeError(f"{what}, which pydicom cannot decode; export it uncompressed") from None
    plugins = set(decoder.available_plugins)
    if syntax == JPEGExtended12Bit and header.get("BitsAllocated") != 8:
        plugins.discard("pillow")  # which has 8 bits only
    if not plugins:
        by_gdcm = any("gdcm" in plugin for plugin in decoder.missing_dependencies)
        package = "python-gdcm" if by_gdcm else "pylibjpeg-openjpeg"
        raise VolumeError(f"{what}, for which a decoder is missing; pip install {package}")
    return True


def _numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    """So many finite numbers of an element; raises VolumeError."""
    if keyword not in header or header[keyword].is_empty:
        raise VolumeError(f"has no {keyword}, which every slice of a CT needs; {WRITE_AGAIN}")
    value = header[keyword].value
    try:
        numbers = tuple(float(n) for n in ([value] if header[keyword].VM == 1 else value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise VolumeError(
            f"its {keyword} is {shown(value)}, expected {count} numbers; {WRITE_AGAIN}"
        )
    return numbers
