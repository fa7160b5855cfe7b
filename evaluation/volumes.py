"""Scans and masks as SimpleITK images: read them, compare their geometry, measure them."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from evaluation.errors import EvaluationError

# NIfTI stores its geometry as float32: a copy of a header differs by about 1e-7 of its size.
POSITION_TOLERANCE_MM = 1e-2
SPACING_TOLERANCE_MM = 1e-4
DIRECTION_TOLERANCE = 1e-4


def read(path: Path) -> sitk.Image:
    """Read a 3D image file; raises EvaluationError when it cannot be read or is not 3D."""
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise EvaluationError(f"{path}: cannot be read as an image ({reason})") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise EvaluationError(f"{path}: expected one value a voxel in 3 dimensions")
    return image


def geometry_difference(scan: sitk.Image, mask: sitk.Image) -> str | None:
    """Say in words how a mask's grid differs from its scan's; None when they are the same.

    Size must be equal; spacing, origin and direction to the precision of a NIfTI header.
    """
    if scan.GetSize() != mask.GetSize():
        return f"size is {mask.GetSize()} voxels (x, y, z), the scan's is {scan.GetSize()}"
    for what, of_mask, of_scan, tolerance in (
        ("spacing", mask.GetSpacing(), scan.GetSpacing(), SPACING_TOLERANCE_MM),
        ("origin", mask.GetOrigin(), scan.GetOrigin(), POSITION_TOLERANCE_MM),
        ("direction", mask.GetDirection(), scan.GetDirection(), DIRECTION_TOLERANCE),
    ):
        if not np.allclose(of_mask, of_scan, rtol=0, atol=tolerance):
            return f"{what} is {_rounded(of_mask)}, the scan's is {_rounded(of_scan)}"
    return None


def lesion_ml(mask: sitk.Image) -> float:
    """Return the volume of all voxels that are not 0, in millilitres."""
    voxel_ml = float(np.prod(mask.GetSpacing())) / 1000.0
    return float(np.count_nonzero(sitk.GetArrayViewFromImage(mask))) * voxel_ml


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
