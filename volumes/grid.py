"""Where voxels lie, and whether two files' voxels lie in the same places."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# NIfTI stores its geometry as float32: a copy of a header differs by about 1e-7 of its size.
POSITION_TOLERANCE_MM = 1e-2
SPACING_TOLERANCE_MM = 1e-4
DIRECTION_TOLERANCE = 1e-4

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes in NIfTI's RAS+, and the other way round


@dataclass(frozen=True)
class Grid:
    """The grid of a volume.

    affines: voxel index (x, y, z) to RAS+ millimetres, 4 x 4, each that the file states: of NIfTI
    the sform before the qform, and neither where no code says that it is set. affine: the first of
    these, or a substitute.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx: tuple[float, float, float]  # mm, positive
    affines: tuple[Matrix, ...]
    affine: Matrix

    @classmethod
    def of_affine(cls, shape_zyx: tuple[int, int, int], affine: Matrix) -> "Grid":
        """Return the grid that one affine states, spacing included, as in MetaImage and NRRD."""
        x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        return cls(shape_zyx, (z, y, x), (affine,), affine)

    @property
    def voxel_ml(self) -> float:
        """The volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_zyx)) / 1000.0

    def lps(self) -> tuple[list[float], list[float], Matrix]:
        """Return spacing and origin (x, y, z; mm) and direction (columns x, y, z) in ITK's LPS+."""
        affine = LPS @ self.affine
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        return spacing.tolist(), affine[:3, 3].tolist(), affine[:3, :3] / spacing


def grid_difference(scan: Grid, mask: Grid) -> str | None:
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


def same_spacing(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two spacings (mm) are the same to the precision of a NIfTI header."""
    return np.allclose(one, other, rtol=0, atol=SPACING_TOLERANCE_MM)


def _affine_difference(of_scan: Matrix, of_mask: Matrix) -> str | None:
    ours, theirs = _geometry(of_scan), _geometry(of_mask)
    tolerances = (SPACING_TOLERANCE_MM, POSITION_TOLERANCE_MM, DIRECTION_TOLERANCE)
    for what, mask, scan, tolerance in zip(
        ("spacing", "origin", "direction"), theirs, ours, tolerances, strict=True
    ):
        difference = _differs(what, mask, scan, tolerance)
        if difference is not None:
            return difference
    return None


def _geometry(affine: Matrix) -> tuple[tuple[float, ...], ...]:
    """Return spacing (z, y, x; mm), origin (mm) and direction (columns x, y, z) of an affine."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(invalid="ignore"):  # a header may state an infinite step
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
