"""Every format by the name of a file: read a scan, write a mask on its grid."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from volumes import metaimage, nifti, nrrd
from volumes.errors import VolumeError
from volumes.grid import Grid
from volumes.streams import Array, Dtype, zero_nonfinite

Header: TypeAlias = nifti.Header | metaimage.Header | nrrd.Header


_FORMATS: dict[str, Any] = {  # modules with Header, read_header, read, header_of, write
    ".nii.gz": nifti,
    ".nii": nifti,
    ".mha": metaimage,
    ".mhd": metaimage,
    ".nrrd": nrrd,
    ".nhdr": nrrd,
}
SUFFIXES = tuple(_FORMATS)


def suffix_of(path: Path) -> str:
    """The entry of SUFFIXES that a file's name ends in, whatever the case. Raises VolumeError."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return suffix
    raise VolumeError(f"not an image file name; expected one of {', '.join(SUFFIXES)}")


def read(
    path: Path, of_nifti: Callable[[nifti.Header, Array], tuple[Array, int]] = nifti.as_itk
) -> tuple[Header, Array, int]:
    """Read one volume: its header, its voxels, and how many of those were not finite.

    The voxels (z, y, x) are those that ITK gives, contiguous, writable and in native byte order,
    except that what is not finite is 0 in every format (in ITK in NIfTI alone). ``of_nifti`` may be
    `nifti.as_nibabel`. Raises VolumeError.
    """
    header, stored = _FORMATS[suffix_of(path)].read(path)
    if isinstance(header, nifti.Header):
        return header, *of_nifti(header, stored)
    return header, stored, zero_nonfinite(stored)


def read_grid(path: Path) -> Grid:
    """Read where the voxels of a file lie, and none of them; raises VolumeError."""
    header: Header = _FORMATS[suffix_of(path)].read_header(path)
    return header.grid


def write(path: Path, like: Header, dtype: Dtype, planes: Iterable[Array]) -> None:
    """Write voxels of ``dtype`` on the grid of a file that was read, in the format of the name.

    planes: parts (z, y, x) in order; each is written before the next is asked for. Where the format
    is that of ``like`` the header says the same in the same words. It is compressed, except as
    .nii. Raises VolumeError for another name, OSError, and what ``planes`` raises; nothing is left.
    """
    form = _FORMATS[suffix_of(path)]
    header = like if isinstance(like, form.Header) else form.header_of(like.grid)
    form.write(path, header, dtype, planes)


@dataclass(frozen=True)
class Volume:
    """Voxels (z, y, x) on the grid of a file that was read: a mask of a scan."""

    voxels_zyx: Array
    header: Header

    @property
    def grid(self) -> Grid:
        """Where the voxels lie."""
        return self.header.grid

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file, as `write` does: in the format of its name, there whole or not at all."""
        write(Path(path), self.header, self.voxels_zyx.dtype, [self.voxels_zyx])
