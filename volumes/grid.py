"""Where voxels lie, and whether two files' voxels lie in the same places."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volumes.errors import VolumeError

Matrix = NDArray[np.float64]

# NIfTI stores its geometry as float32: a copy of a header differs by about 1e-7 of its size.
POSITION_TOLERANCE_MM = 1e-2
SPACING_TOLERANCE_MM = 1e-4
DIRECTION_TOLERANCE = 1e-4
_TOLERANCES = {
    "spacing": SPACING_TOLERANCE_MM,
    "origin": POSITION_TOLERANCE_MM,
    "direction": DIRECTION_TOLERANCE,
}

# More than a person, and than the finest CT of one: such a header is damaged, or not in mm.
MOST_EXTENT_MM = 4000.0
MOST_VOXELS = 2**31

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
    def readings(self) -> tuple[Matrix, ...]:
        """The affines that programs take for the header's.

        They differ in whether they follow the sform or the qform; and of the sform ITK, and so
        nnU-Net, takes the direction and the origin alone, and its spacing from pixdim.
        """
        scaled = (_scaled(affine, self.spacing_zyx) for affine in self.affines)
        return (*self.affines, *scaled)

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

    Size must be equal; spacing, origin and direction to the precision of a NIfTI header. Any of a
    scan's readings will do; where its header states no affine, a mask may lie anywhere.
    """
    if scan.shape_zyx != mask.shape_zyx:
        sizes = mask.shape_zyx[::-1], scan.shape_zyx[::-1]
        return f"size is {sizes[0]} voxels (x, y, z), the scan's is {sizes[1]}"
    readings = scan.readings
    spacings = [scan.spacing_zyx, *(_geometry(reading)[0] for reading in readings)]
    found = [
        [_difference("spacing", one, mask.spacing_zyx) for one in spacings],
        [
            _affine_difference(of_scan, of_mask)
            for of_scan in readings
            for of_mask in mask.affines or (mask.affine,)
        ],
    ]
    for differences in found:
        if differences and None not in differences:
            what, ours, theirs = next(filter(None, differences))
            return f"{what} is {theirs}, the scan's is {ours}"
    return None


def ambiguity(scan: Grid) -> str | None:
    """Say in words how the readings of a scan's header differ; None when they are the same."""
    for other in scan.readings[1:]:
        if difference := _affine_difference(scan.readings[0], other):
            what, one, another = difference
            return f"{what} is {one} or {another}"
    return None


def check_extent(shape_xyz: Sequence[int], spacing_xyz: Sequence[float]) -> None:
    """Raise VolumeError for a grid, of a slice or a volume, that no scan of a person has; mm."""
    extent = [size * step for size, step in zip(shape_xyz, spacing_xyz, strict=True)]
    if max(extent) > MOST_EXTENT_MM or math.prod(shape_xyz) > MOST_VOXELS:
        sizes, steps = (" x ".join(f"{n:.6g}" for n in given) for given in (shape_xyz, spacing_xyz))
        raise VolumeError(
            f"{sizes} voxels of {steps} mm are no person's (at most {MOST_EXTENT_MM:g} mm a side"
            f" and {MOST_VOXELS} voxels); write its true spacing in mm"
        )


def same_spacing(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two spacings (mm) are the same to the precision of a NIfTI header."""
    return np.allclose(one, other, rtol=0, atol=SPACING_TOLERANCE_MM)


_Difference = tuple[str, tuple[float, ...], tuple[float, ...]]  # what differs, and both values


def _affine_difference(of_scan: Matrix, of_mask: Matrix) -> _Difference | None:
    geometries = zip(_TOLERANCES, _geometry(of_scan), _geometry(of_mask), strict=True)
    found = (_difference(what, scan, mask) for what, scan, mask in geometries)
    return next(filter(None, found), None)


def _geometry(affine: Matrix) -> tuple[tuple[float, ...], ...]:
    """Return spacing (z, y, x; mm), origin (mm) and direction (columns x, y, z) of an affine."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = _scaled(affine, (1.0, 1.0, 1.0))[:3, :3]
    return tuple(spacing[::-1].tolist()), tuple(affine[:3, 3]), tuple(direction.ravel().tolist())


def _scaled(affine: Matrix, spacing_zyx: tuple[float, ...]) -> Matrix:
    """The affine with steps of another length; a step of 0 stays."""
    lengths, scaled = np.linalg.norm(affine[:3, :3], axis=0), affine.copy()
    with np.errstate(invalid="ignore"):  # a header may state an infinite step
        scaled[:3, :3] *= np.array(spacing_zyx[::-1]) / np.where(lengths > 0, lengths, 1.0)
    return scaled


def _difference(what: str, scan: tuple[float, ...], mask: tuple[float, ...]) -> _Difference | None:
    if np.allclose(mask, scan, rtol=0, atol=_TOLERANCES[what]):
        return None
    if what == "spacing":  # people write it as x, y, z
        mask, scan = mask[::-1], scan[::-1]
    ours, theirs = (
        tuple(round(float(value), 4) + 0.0 for value in values) for values in (scan, mask)
    )
    return what, ours, theirs
