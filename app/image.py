"""Read a scan, write its label map.

An Image holds the voxels in the order (z, y, x) and the spacing that nnU-Net's reader would see, so
that everything behind it computes what nnU-Net computes.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from app.model_rules import READERS
from volumes import formats, nifti
from volumes.errors import UserError, VolumeError
from volumes.grid import grid_difference, same_spacing
from volumes.orientation import AS_STORED, Orientation, nearest_ras
from volumes.streams import zero_nonfinite

Array: TypeAlias = npt.NDArray[Any]

SUFFIXES = formats.SUFFIXES
DICOM_SUFFIX = ".dcm"


class ImageError(UserError):
    """One line for the user: file, finding, remedy."""


@dataclass(frozen=True)
class Image:
    """One scan.

    voxels: (z, y, x), native byte order: the stored integers where the file asks for no rescale,
    else float32; all finite. spacing_zyx: mm, positive. header: the file's own, for its mask.
    notes: what was unusual about the file, for the log, without its name. orientation: how the
    voxels were turned by the reader; the mask is turned back. slices: of a DICOM series the file of
    each plane as it is stored.
    """

    voxels: Array
    spacing_zyx: tuple[float, float, float]
    header: formats.Header
    notes: tuple[str, ...]
    orientation: Orientation = AS_STORED
    slices: tuple[Path, ...] = ()

    def __str__(self) -> str:
        spacing = by(self.spacing_zyx)
        return f"{self.voxels.dtype}, {by(self.voxels.shape)} voxels of {spacing} mm (z, y, x)"


def suffix_of(path: Path) -> str:
    """The entry of SUFFIXES that path ends in, whatever the case, or that of DICOM.

    Raises ImageError if it is none.
    """
    if path.suffix.lower() == DICOM_SUFFIX:
        return DICOM_SUFFIX
    try:
        return formats.suffix_of(path)
    except VolumeError as error:
        raise ImageError(f"{path}: {error}") from None


def read_image(
    path: str | os.PathLike[str], reader: str = READERS[0], series: str | None = None
) -> Image:
    """Read one scan of one volume, as one of nnU-Net's readers does.

    It is a file, or a folder with a DICOM series, which is read as the NIfTI that ITK makes of it.
    series: its UID, where the folder has several.

    With SimpleITKIO voxels and spacing equal those of SimpleITK.ReadImage after a cast to float32,
    except: a NIfTI file whose direction ITK refuses is read with the spacing of pixdim; voxels that
    are not finite become 0 in every format (ITK does it in NIfTI alone). A two-dimensional image is
    one slice with nnU-Net's slice spacing, 999 times the larger one in the plane. With NibabelIO
    they equal those of nibabel, with the same exceptions; NibabelIOWithReorient turns them to RAS+.
    Raises ImageError for whatever cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        from app.dicom.volume import read_series

        image = read_series(path, series)
    elif series is None:
        image = _read_file(path, reader)
    else:
        raise ImageError(f"{path}: a file has no series to choose from; leave out --series")
    return image if reader != "NibabelIOWithReorient" else _turned(path, image)


def _read_file(path: Path, reader: str) -> Image:
    try:
        of_nifti = nifti.as_itk if reader == READERS[0] else nifti.as_nibabel
        header, voxels, replaced = formats.read(path, of_nifti)
    except VolumeError as error:
        raise ImageError(f"{path}: {error}") from None
    spacing = header.spacing
    notes = header.remarks if isinstance(header, nifti.Header) else ()
    if len(spacing) == 2:
        spacing = (999 * max(spacing), *spacing)
        notes += (f"two-dimensional image, slice spacing taken as {spacing[0]:g} mm as in nnU-Net",)
    if voxels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            voxels = voxels.astype(np.float32, copy=False)
        replaced += zero_nonfinite(voxels)  # float64 beyond the range of float32
    if replaced == voxels.size:
        raise ImageError(f"{path}: no voxel is a finite number; export the scan again")
    if replaced:
        notes += (f"{replaced} voxels are not finite, set to 0",)
    z, y, x = spacing
    return Image(voxels, (z, y, x), header, notes)


def _turned(path: Path, image: Image) -> Image:
    """The image in RAS+; raises ImageError."""
    affine = image.header.grid.affine
    try:
        orientation = nearest_ras(affine)
    except np.linalg.LinAlgError:
        raise ImageError(f"{path}: its header states no direction; export the scan again") from None
    if orientation == AS_STORED:
        return image
    lengths = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    if isinstance(image.header, nifti.Header):  # nibabel writes them into a new header's pixdim
        lengths = lengths.astype(image.header.fields["pixdim"].dtype)
    z, y, x = (float(lengths[axis]) for axis in orientation.axes)
    voxels = orientation.turned(image.voxels)
    return replace(image, voxels=voxels, spacing_zyx=(z, y, x), orientation=orientation)


def read_channels(files: Sequence[Path], reader: str, series: str | None) -> list[Image]:
    """Read the channels of one scan, which share one grid; raises ImageError."""
    images = [read_image(f, reader, series) for f in files]
    for file, image in zip(files[1:], images[1:], strict=True):
        difference = same_grid(images[0], image)
        if difference:
            raise ImageError(f"{file}: {difference} than {files[0].name}; resample it first")
    return images


def is_mask_of(mask: Path, scan: Path, series: str | None) -> bool:
    """Whether there is a label map, undamaged to its last byte, on the grid of a scan.

    ``series`` as for `read_image`. Of a DICOM-SEG that is not known.
    """
    try:
        header, voxels, _ = formats.read(mask)
        is_series = scan.is_dir()
        grid = read_image(scan, series=series).header.grid if is_series else formats.read_grid(scan)
    except (VolumeError, ImageError):
        return False
    return voxels.dtype.kind == "u" and grid_difference(grid, header.grid) is None


def probabilities_of(mask: Path) -> Path:
    """The file of the probabilities that a mask was made of, beside it; raises ImageError."""
    return mask.with_name(f"{mask.name[: -len(suffix_of(mask))]}.npz")


def write_planes(
    path: str | os.PathLike[str], planes: Iterator[Array], dtype: npt.DTypeLike, like: Image
) -> None:
    """Write a label map of ``dtype`` on the grid of the scan it was made from, atomically.

    planes: its parts (z, y, x), in order along z, on the axes of ``like.voxels``; each is written
    before the next is asked for, unless they can only be turned back as a whole. The name decides
    the format; it is compressed, except as .nii. An existing file is replaced. Raises ImageError,
    and what ``planes`` raises; nothing is left behind then.
    """
    path = Path(path)
    stored = like.orientation.stored(planes, like.header.shape_zyx, np.dtype(dtype))
    try:
        formats.write(path, like.header, np.dtype(dtype), stored)
    except OSError as error:
        raise unwritable(path, error) from None
    except VolumeError as error:
        raise ImageError(f"{path}: {error}") from None


@contextmanager
def writing_probabilities(
    mask: Path, classes: int, like: Image
) -> Iterator[Callable[[Array], None]]:
    """Yield a function that takes parts (class, planes, y, x), in order along the scan's z.

    They become nnU-Net's file beside the mask, ``probabilities`` in X.npz, in half precision: there
    whole, when the block ends, or not at all. Raises ImageError.
    """
    path = probabilities_of(mask)
    shape = classes, *like.voxels.shape
    try:
        from volumes import npz  # not for every start

        with npz.writing(path, "probabilities", shape, np.dtype(np.float16)) as add:
            yield add
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> ImageError:
    """What is said of a file that cannot be written."""
    reason = error.strerror or error
    return ImageError(
        f"{path}: cannot be written ({reason}); check the folder, permissions and free space"
    )


def same_grid(a: Image, b: Image) -> str | None:
    """None if a and b can be channels of one case, else a phrase that says how b differs from a.

    Shape and spacing must agree, to the precision of a NIfTI header.
    """
    if a.voxels.shape != b.voxels.shape:
        return f"different shape ({by(b.voxels.shape)}, not {by(a.voxels.shape)})"
    if not same_spacing(a.spacing_zyx, b.spacing_zyx):
        return f"different spacing ({by(b.spacing_zyx)} mm, not {by(a.spacing_zyx)} mm)"
    return None


def by(zyx: tuple[float, ...]) -> str:
    """Lengths or numbers along the axes in words."""
    return " x ".join(f"{value:.6g}" for value in zyx)
