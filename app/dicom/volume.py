"""The voxels of a CT series, in Hounsfield units."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from app.dicom.files import Clipped, check_installed, naming, parsing, shown
from app.dicom.series import Series, find_series
from app.dicom.slices import Slice
from app.image import Array, Image
from volumes import nifti
from volumes.errors import VolumeError
from volumes.streams import Dtype, opened


def read_series(folder: Path, uid: str | None) -> Image:
    """The one CT series of a folder, or that of ``uid``, as it would be in a NIfTI file.

    Voxels (z, y, x) in Hounsfield units: int16 or int32 where every slice's rescale is in whole
    numbers, else float32. The slices' files are those of ``Image.slices``. Raises ImageError, as
    `find_series` does, and where a slice cannot be decoded.
    """
    check_installed(folder)
    series = find_series(folder, uid, lambda a, b: np.array_equal(_decoded(a), _decoded(b)))
    header = nifti.header_of(series.grid)
    with naming(folder):
        header.check()
    voxels = _voxels(series)
    z, y, x = header.spacing
    files = tuple(s.file for s in series.slices)
    return Image(voxels, (z, y, x), header, series.notes, slices=files)


def _voxels(series: Series) -> Array:
    voxels = np.empty(series.grid.shape_zyx, _dtype(series.slices))
    for plane, slice_ in zip(voxels, series.slices, strict=True):
        plane[...] = _decoded(slice_)
    return voxels


def _dtype(slices: Sequence[Slice]) -> Dtype:
    """The smallest type that holds whatever the slices can hold."""
    if not all(s.slope.is_integer() and s.intercept.is_integer() for s in slices):
        return np.dtype(np.float32)
    ends = [end for s in slices for end in _range(s)]
    for dtype in (np.dtype(np.int16), np.dtype(np.int32)):
        if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
            return dtype
    return np.dtype(np.float32)


def _range(slice_: Slice) -> tuple[float, float]:
    lowest = -(2 ** (slice_.bits - 1)) if slice_.signed else 0
    one, other = (
        slice_.slope * end + slice_.intercept for end in (lowest, lowest + 2**slice_.bits - 1)
    )
    return min(one, other), max(one, other)


def _decoded(slice_: Slice) -> Array:
    """One slice's pixels (y, x) rescaled, float64; raises ImageError."""
    from pydicom.pixels.utils import pixel_array

    with naming(slice_.file), opened(slice_.file) as stream, parsing():
        stored = pixel_array(cast(BinaryIO, Clipped(stream)), raw=True)
        if stored.shape != slice_.shape:
            raise VolumeError(f"decodes to {shown(stored.shape)} pixels, not {slice_.shape}")
        unused = 8 * stored.dtype.itemsize - slice_.bits  # may hold an overlay
        return (stored << unused >> unused) * slice_.slope + slice_.intercept
