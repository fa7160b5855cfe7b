"""Read a scan, write its label map: NIfTI by app.nifti, MetaImage and NRRD through SimpleITK.

An Image holds the voxels in the order (z, y, x) and the spacing that nnU-Net's SimpleITKIO would
see, so that everything behind it computes what nnU-Net computes.
"""

import importlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from app import nifti

Array: TypeAlias = npt.NDArray[Any]

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
_NIFTI_SUFFIXES = (".nii.gz", ".nii")


class ImageError(Exception):
    """One line for the user: file, finding, remedy."""


@dataclass(frozen=True)
class _ItkGeometry:
    """Grid of a file read through SimpleITK, in ITK's order (x, y, z) and mm."""

    suffix: str
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]


@dataclass(frozen=True)
class Image:
    """One scan.

    voxels: (z, y, x), native byte order: the stored integers where the file asks for no rescale,
    else float32; all finite. spacing_zyx: mm, positive. geometry: what write_mask needs, opaque.
    notes: what was unusual about the file, for the log, without its name.
    """

    voxels: Array
    spacing_zyx: tuple[float, float, float]
    geometry: nifti.Header | _ItkGeometry
    notes: tuple[str, ...]


def suffix_of(path: str | os.PathLike[str]) -> str:
    """The entry of SUFFIXES that path ends in, whatever the case. Raises ImageError if none."""
    name = Path(path).name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise ImageError(f"{path}: not an image file name; expected one of {', '.join(SUFFIXES)}")


def check_format(mask: Path, scan_suffix: str) -> None:
    """Raise ImageError unless ``mask`` is named for the format of a scan with that suffix."""
    allowed = _NIFTI_SUFFIXES if scan_suffix in _NIFTI_SUFFIXES else (scan_suffix,)
    if suffix_of(mask) not in allowed:
        raise ImageError(
            f"{mask}: the format differs from the scan's; name it {' or '.join(allowed)}"
        )


def read_image(path: str | os.PathLike[str]) -> Image:
    """Read one scan of one volume.

    Voxels and spacing equal those of SimpleITK.ReadImage after a cast to float32, except: a NIfTI
    file whose direction ITK refuses is read with the spacing of pixdim; voxels that are not finite
    become 0 in every format (ITK does it in NIfTI alone). A two-dimensional image is one slice with
    nnU-Net's slice spacing, 999 times the larger one in the plane. Raises ImageError for whatever
    cannot be read.
    """
    path = Path(path)
    suffix = suffix_of(path)
    try:
        with path.open("rb") as file:
            if suffix in _NIFTI_SUFFIXES:
                header, voxels, replaced = nifti.read(file, os.fstat(file.fileno()).st_size)
                geometry: nifti.Header | _ItkGeometry = header
                spacing, notes = nifti.spacing(header), nifti.remarks(header)
            else:
                voxels, geometry = _read_itk(path, suffix)
                replaced = nifti.zero_nonfinite(voxels)
                spacing, notes = geometry.spacing[:3][::-1], ()
    except nifti.NiftiError as error:
        raise ImageError(f"{path}: {error}") from None
    except OSError as error:
        reason = error.strerror or error
        raise ImageError(
            f"{path}: cannot be read ({reason}); check that it is a file and its permissions"
        ) from None
    except MemoryError:
        raise ImageError(f"{path}: too large for the memory; give the container more") from None
    if len(spacing) == 2:
        spacing = (999 * max(spacing), *spacing)
        notes += (f"two-dimensional image, slice spacing taken as {spacing[0]:g} mm as in nnU-Net",)
    if voxels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            voxels = voxels.astype(np.float32, copy=False)
        replaced += nifti.zero_nonfinite(voxels)  # float64 beyond the range of float32
    if replaced == voxels.size:
        raise ImageError(f"{path}: no voxel is a finite number; export the scan again")
    if replaced:
        notes += (f"{replaced} voxels are not finite, set to 0",)
    z, y, x = (abs(step) for step in spacing)
    return Image(voxels, (z, y, x), geometry, notes)


def write_mask(path: str | os.PathLike[str], mask: Array, like: Image) -> None:
    """Write a label map on the grid of the scan it was made from, atomically.

    mask: (z, y, x), uint8 or uint16, of like's shape. The format must be the one like was read from
    (.nii and .nii.gz are one); it is compressed, except as .nii. An existing file is replaced. On
    failure nothing is left behind and ImageError is raised.
    """
    if mask.dtype not in (np.uint8, np.uint16) or mask.shape != like.voxels.shape:
        raise ValueError(
            f"mask: {mask.dtype} {mask.shape}, expected uint8 or uint16 {like.voxels.shape}"
        )
    write_planes(path, iter([mask]), mask.dtype, like)


def write_planes(
    path: str | os.PathLike[str], planes: Iterator[Array], dtype: npt.DTypeLike, like: Image
) -> None:
    """The same for a mask of ``dtype`` that comes in parts (z, y, x), in order along z.

    NIfTI is written part by part; for other formats the mask is collected first. An error that
    ``planes`` raises leaves nothing behind either.
    """
    path, dtype = Path(path), np.dtype(dtype)
    geometry = like.geometry
    check_format(path, ".nii" if isinstance(geometry, nifti.Header) else geometry.suffix)
    suffix = suffix_of(path)
    try:
        # A hidden folder beside the target: same file system, and no evaluator looks into it.
        with tempfile.TemporaryDirectory(prefix=".mask-", dir=path.parent) as folder:
            if isinstance(geometry, nifti.Header):
                part = Path(folder, "mask.part")
                with part.open("wb") as file:
                    nifti.write_mask(file, geometry, dtype, planes, compressed=suffix == ".nii.gz")
                _publish([(part, path)])
            else:
                _write_itk(Path(folder, path.name), _collected(planes, dtype, like), geometry)
                # Data files go first: a header in place never names data that is not.
                parts = sorted(Path(folder).iterdir(), key=lambda part: part.name == path.name)
                _publish([(part, path.with_name(part.name)) for part in parts])
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or _one_line(error)
        raise ImageError(
            f"{path}: cannot be written ({reason}); check the folder, permissions and free space"
        ) from None


def same_grid(a: Image, b: Image) -> str | None:
    """None if a and b can be channels of one case, else a phrase that says how b differs from a.

    Shape and spacing must agree, spacing to np.allclose's default tolerance, as in nnU-Net.
    """
    if a.voxels.shape != b.voxels.shape:
        return f"different shape ({_by(b.voxels.shape)}, not {_by(a.voxels.shape)})"
    if not np.allclose(a.spacing_zyx, b.spacing_zyx):
        return f"different spacing ({_by(b.spacing_zyx)} mm, not {_by(a.spacing_zyx)} mm)"
    return None


def _by(zyx: tuple[float, ...]) -> str:
    return " x ".join(f"{value:.6g}" for value in zyx)


def _simpleitk() -> Any:
    """SimpleITK, imported when needed: its 0.2 s are too much for a run on NIfTI."""
    return importlib.import_module("SimpleITK")


def _read_itk(path: Path, suffix: str) -> tuple[Array, _ItkGeometry]:
    """Voxels (z, y, x) and grid of a file in a format that SimpleITK reads."""
    sitk = _simpleitk()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ImageError(
            f"{path}: no readable {suffix} header ({_one_line(error)}); export the scan again"
        ) from None
    size = reader.GetSize()
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelIDValue())
    if reader.GetNumberOfComponents() != 1 or "complex" in kind or "vector" in kind:
        raise ImageError(
            f"{path}: voxels are {kind}, expected one number; convert the scan to int16"
        )
    if min(size) < 1 or len(size) < 2:
        raise ImageError(f"{path}: empty dimensions {size}; export the scan again")
    if np.prod(size[3:]) > 1:
        raise ImageError(f"{path}: {np.prod(size[3:])} volumes in one file, expected 1; split it")
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise ImageError(
            f"{path}: voxels are missing or damaged ({_one_line(error)}); copy the file again"
        ) from None
    voxels = sitk.GetArrayFromImage(image).reshape((1, *size[::-1])[-3:])
    grid = _ItkGeometry(suffix, size, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return voxels, grid


def _collected(planes: Iterator[Array], dtype: npt.DTypeLike, like: Image) -> Array:
    mask = np.empty(like.voxels.shape, dtype)
    done = 0
    for part in planes:
        mask[done : done + len(part)] = part
        done += len(part)
    return mask


def _write_itk(path: Path, mask: Array, grid: _ItkGeometry) -> None:
    sitk = _simpleitk()
    image = sitk.GetImageFromArray(mask.reshape(grid.size[::-1]), isVector=False)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    sitk.WriteImage(image, str(path), useCompression=True)


def _publish(moves: list[tuple[Path, Path]]) -> None:
    """Rename each file to its place, all or none."""
    done: list[Path] = []
    try:
        for source, target in moves:
            source.replace(target)
            done.append(target)
    except OSError:
        for target in done:
            target.unlink()
        raise


def _one_line(error: Exception) -> str:
    """An ITK error without its place in the source, object address and line ends."""
    text = str(error).rpartition("ERROR: ")[2]
    return " ".join(re.sub(r"\(0x[0-9a-f]+\)", "", text).split())
