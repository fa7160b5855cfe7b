"""Scans and masks in NIfTI: read a header, read voxels, compare grids.

ITK, and so SimpleITK, fills a truncated file with zeros and reads NaN as 0. A judge must see both,
so files are decompressed whole, with their checksum, and nibabel reads the header.
"""

import logging
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np
from isal import igzip, igzip_lib
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from evaluation.errors import EvaluationError

# NIfTI stores its geometry as float32: a copy of a header differs by about 1e-7 of its size.
POSITION_TOLERANCE_MM = 1e-2
SPACING_TOLERANCE_MM = 1e-4
DIRECTION_TOLERANCE = 1e-4

HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348
EXTENSION_BYTES = 2**24  # at most this much before the voxels: else it bounds no decompression
CHUNK_BYTES = 2**24  # a header may ask for more than there is memory, and its file hold little
UNSCALED = (1.0, 0.0)
NOWHERE = logging.Logger("nibabel", logging.CRITICAL)  # it would say on stderr what it tried
BAD_GZIP = cast(type[Exception], igzip_lib.error)  # isal annotates it as an instance


@dataclass(frozen=True)
class Header:
    """What a NIfTI header says of its voxels.

    affines: voxel index (x, y, z) to RAS+ millimetres, 4 x 4, sform before qform, each only where
    its code says that it is set. dtype: of the voxels once they are scaled.
    """

    path: Path
    shape_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]  # mm; pixdim
    affines: tuple[NDArray[np.float64], ...]
    affine: NDArray[np.float64]  # the first of these, or nibabel's substitute
    dtype: np.dtype[Any]

    @property
    def voxel_ml(self) -> float:
        """The volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_zyx)) / 1000.0


@dataclass(frozen=True)
class Volume:
    """A header and its voxels, as (z, y, x)."""

    header: Header
    voxels_zyx: NDArray[Any]


def read_header(path: Path) -> Header:
    """Read the header of a .nii or .nii.gz file, none of its voxels.

    Raises EvaluationError when there is no such regular file, or it is not a NIfTI volume with one
    value a voxel in 3 dimensions.
    """
    with _opened(path) as stream:
        content = bytearray()
        _extend(content, path, stream, HEADER_BYTES)
        return _described(path, _parsed(path, content))


def read(path: Path) -> Volume:
    """Read a .nii or .nii.gz file; raises EvaluationError as `read_header`, or when it is damaged.

    Voxels keep their type, unless the header asks to scale them: then they are float64. No more is
    decompressed than the header asks for; whether that is sensible, `read_header` lets one see.
    """
    with _opened(path) as stream:
        content = bytearray()
        _extend(content, path, stream, HEADER_BYTES)
        parsed = _parsed(path, content)
        header = _described(path, parsed)
        stored, count = parsed.get_data_dtype(), math.prod(header.shape_zyx)
        offset = int(parsed["vox_offset"])
        end = offset + stored.itemsize * count
        _extend(content, path, stream, end)
        if len(content) < end:
            raise EvaluationError(
                f"{path}: truncated: {len(content)} of {end} bytes; write the file again"
            )
        # One more byte makes the decompressor compare the checksum, if the stream ends there.
        _extend(content, path, stream, end + 1)
    flat = np.frombuffer(content, stored, count, offset)
    voxels = flat.reshape(header.shape_zyx)
    slope, intercept = _scaling(parsed)
    if (slope, intercept) != UNSCALED:
        voxels = voxels.astype(np.float64) * slope + intercept
    return Volume(header, voxels)


def grid_difference(scan: Header, mask: Header) -> str | None:
    """Say in words how a mask's grid differs from its scan's; None when they are the same.

    Size must be equal; spacing, origin and direction to the precision of a NIfTI header. Programs
    differ in whether they follow the sform or the qform: where a scan has two, either will do;
    where it has none, a mask may lie anywhere.
    """
    if scan.shape_zyx != mask.shape_zyx:
        ours, theirs = scan.shape_zyx[::-1], mask.shape_zyx[::-1]
        return f"size is {theirs} voxels (x, y, z), the scan's is {ours}"
    spacing = _differs("spacing", mask.spacing_zyx, scan.spacing_zyx, SPACING_TOLERANCE_MM)
    if spacing is not None or not scan.affines:
        return spacing
    found = [
        _affine_difference(of_scan, of_mask)
        for of_scan in scan.affines
        for of_mask in mask.affines or (mask.affine,)
    ]
    return None if None in found else found[0]


def write_like(scan: Path, voxels_zyx: NDArray[Any], path: Path) -> None:
    """Write voxels as .nii.gz with a scan's header, so on its grid whatever the header says of it.

    The file is on the disk when this returns.
    """
    like: Any = nibabel.load(scan)
    voxels = voxels_zyx.T.astype(voxels_zyx.dtype.newbyteorder("="), copy=False)
    nibabel.save(type(like)(voxels, None, like.header, dtype=voxels.dtype), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def lesion_ml(volume: Volume) -> float:
    """Return the volume of all voxels that are not 0, in millilitres."""
    return int(np.count_nonzero(volume.voxels_zyx)) * volume.header.voxel_ml


def _opened(path: Path) -> IO[bytes]:
    try:
        # A submission could leave a pipe, which would block, in place of a file.
        if not stat.S_ISREG(path.stat().st_mode):
            raise EvaluationError(f"{path}: not a regular file")
        return igzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file") from error
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be opened ({error.strerror})") from error


def _extend(content: bytearray, path: Path, stream: IO[bytes], size: int) -> None:
    """Read on until `content` has `size` bytes or the file ends."""
    try:
        while len(content) < size:
            piece = stream.read(min(size - len(content), CHUNK_BYTES))
            if not piece:
                return
            content += piece
    except EOFError as error:
        raise EvaluationError(f"{path}: truncated gzip; write the file again") from error
    except (OSError, BAD_GZIP) as error:
        raise EvaluationError(f"{path}: damaged gzip ({error}); write the file again") from error


def _parsed(path: Path, start: bytearray) -> Any:
    for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        try:
            parsed = kind(bytes(start[: kind.template_dtype.itemsize]), check=False)
            parsed.check_fix(NOWHERE, logging.ERROR)
            # These raise, too, of fields that make no sense.
            parsed.get_data_dtype()
            parsed.get_data_shape()
            parsed.get_slope_inter()
            return parsed
        except (HeaderDataError, WrapStructError, ValueError):
            continue
    raise EvaluationError(f"{path}: not a NIfTI file; write the mask as .nii.gz")


def _described(path: Path, parsed: Any) -> Header:
    shape = tuple(int(size) for size in parsed.get_data_shape())
    dtype = parsed.get_data_dtype()
    if len(shape) != 3 or dtype.kind not in "iuf" or min(shape) < 1:
        raise EvaluationError(
            f"{path}: has shape {shape} of {dtype}; expected one number a voxel in 3 dimensions"
        )
    offset = float(parsed["vox_offset"])
    if not parsed.template_dtype.itemsize <= offset <= EXTENSION_BYTES:  # nor NaN
        raise EvaluationError(f"{path}: its voxels cannot start at byte {offset:g}")
    affines = []
    for read_affine in (parsed.get_sform, parsed.get_qform):
        try:
            affine, code = read_affine(coded=True)
        except HeaderDataError:  # a quaternion that is none
            continue
        if code:
            affines.append(np.asarray(affine, np.float64))
    x, y, z = (float(size) for size in parsed.get_zooms())
    if not all(0 < size < math.inf for size in (x, y, z)):  # nor NaN
        raise EvaluationError(f"{path}: its voxels cannot measure {(x, y, z)} mm (x, y, z)")
    return Header(
        path=path,
        shape_zyx=(shape[2], shape[1], shape[0]),
        spacing_zyx=(z, y, x),
        affines=tuple(affines),
        affine=affines[0] if affines else np.asarray(parsed.get_base_affine(), np.float64),
        dtype=dtype if _scaling(parsed) == UNSCALED else np.dtype(np.float64),
    )


def _scaling(parsed: Any) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means that there are none."""
    slope, intercept = parsed.get_slope_inter()
    return UNSCALED if slope is None else (float(slope), float(intercept))


def _affine_difference(of_scan: NDArray[np.float64], of_mask: NDArray[np.float64]) -> str | None:
    ours, theirs = _geometry(of_scan), _geometry(of_mask)
    tolerances = (SPACING_TOLERANCE_MM, POSITION_TOLERANCE_MM, DIRECTION_TOLERANCE)
    for what, mask, scan, tolerance in zip(
        ("spacing", "origin", "direction"), theirs, ours, tolerances, strict=True
    ):
        difference = _differs(what, mask, scan, tolerance)
        if difference is not None:
            return difference
    return None


def _geometry(affine: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    """Return spacing (z, y, x; mm), origin (mm) and direction (columns x, y, z) of an affine."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / np.where(spacing > 0, spacing, 1.0)
    return tuple(spacing[::-1].tolist()), tuple(affine[:3, 3]), tuple(direction.ravel().tolist())


def _differs(
    what: str, mask: tuple[float, ...], scan: tuple[float, ...], tolerance: float
) -> str | None:
    if np.allclose(mask, scan, rtol=0, atol=tolerance):
        return None
    if what == "spacing":  # people write it as x, y, z
        mask, scan = mask[::-1], scan[::-1]
    rounded = [tuple(round(float(value), 4) + 0.0 for value in values) for values in (mask, scan)]
    return f"{what} is {rounded[0]}, the scan's is {rounded[1]}"
