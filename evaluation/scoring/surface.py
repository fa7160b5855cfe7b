"""Normalized surface Dice, equal to DeepMind's surface-distance but fast for scattered lesions.

Both masks become lists of surface elements ("surfels"), slice by slice, so that nothing of the
volume's size is allocated; a KD-tree then says which surfels lie within the tolerance of the other
surface, where DeepMind computes the distance of every voxel in the box around all lesions.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from evaluation.scoring.metrics import check_shapes, check_spacing

Positions = NDArray[np.int64]

# The area of the surface that marching cubes draws between 2 x 2 x 2 voxels: its polygons' normal
# vectors in eighths of a voxel's face, for one of the 48 turned, mirrored or inverted versions of
# each case. The key has a bit for every voxel inside the mask (see CORNER_BITS).
# Condensed from the 256 entries of _NEIGHBOUR_CODE_TO_NORMALS in surface_distance/lookup_tables.py
# of https://github.com/google-deepmind/surface-distance (Copyright 2018 Google Inc., licensed under
# the Apache License, Version 2.0): parallel normals are added up and signs, which a length does not
# depend on, left out.
NORMALS_IN_EIGHTHS = {
    0b00000001: [(1, 1, 1)],
    0b00000011: [(4, 4, 0)],
    0b00000110: [(1, 1, 1), (1, 1, 1)],
    0b00000111: [(4, 0, 0), (3, 3, 3)],
    0b00001111: [(8, 0, 0)],
    0b00010110: [(1, 1, 1), (1, 1, 1), (1, 1, 1)],
    0b00010111: [(6, 6, 6)],
    0b00011000: [(2, 2, 2)],
    0b00011001: [(0, 4, 4), (1, 1, 1)],
    0b00011011: [(4, 4, 4), (0, 2, 2), (2, 0, 2)],
    0b00011110: [(4, 0, 0), (4, 4, 4)],
    0b00111100: [(8, 8, 0)],
    0b01101001: [(1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)],
}
CORNER_BITS = np.array([[[128, 64], [32, 16]], [[8, 4], [2, 1]]])  # by offset z, y, x
ALL_INSIDE = 255


@dataclass(frozen=True)
class Surface:
    """The surfels of one mask.

    positions: (n, 3), the lattice points z, y, x between voxels; point i lies between the voxels
    i - 1 and i. codes: (n,) uint8, which of the eight voxels around it are inside (CORNER_BITS),
    or a mirrored version of that.
    """

    positions: Positions
    codes: NDArray[np.uint8]


def surface_dice(
    prediction: NDArray[np.generic],
    reference: NDArray[np.generic],
    spacing_zyx: Sequence[float] | NDArray[np.floating],
    tolerance_mm: float,
) -> float:
    """Return the share of both surfaces' area that lies within the tolerance of the other, 0 to 1.

    prediction, reference: arrays of one shape (z, y, x) and any bool or integer type; every value
    other than 0 is inside. spacing_zyx: mm. tolerance_mm: at least 0; a surfel at exactly this
    distance counts as near. Two empty masks agree (1.0, where DeepMind's function gives NaN), one
    empty mask does not (0.0).
    Raises ValueError where the shapes differ or are not 3D, and for an impossible spacing or
    tolerance.

    Source: Nikolov et al., arXiv:1809.04430, as computed by compute_surface_dice_at_tolerance of
    https://github.com/google-deepmind/surface-distance.
    """
    check_shapes(prediction, reference, ndim=3)
    spacing = check_spacing(spacing_zyx)
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ValueError(f"tolerance_mm is {tolerance_mm!r}: it must be a number of at least 0")
    predicted, expected = _surface(prediction), _surface(reference)
    if not predicted.codes.size or not expected.codes.size:
        return float(predicted.codes.size == expected.codes.size)
    areas_mm2 = _areas_mm2(spacing)
    total_mm2 = near_mm2 = 0.0
    for own, other in ((expected, predicted), (predicted, expected)):
        near = _near(own.positions, other.positions, spacing, tolerance_mm)
        total_mm2 += float(np.bincount(own.codes, minlength=256) @ areas_mm2)
        near_mm2 += float(np.bincount(own.codes[near], minlength=256) @ areas_mm2)
    return near_mm2 / total_mm2


def _surface(mask: NDArray[np.generic]) -> Surface:
    """Find the surfels of a (z, y, x) mask; outside the array nothing is inside."""
    positions = [np.empty((0, 3), np.int64)]
    codes = [np.empty(0, np.uint8)]
    occupied = np.flatnonzero(mask.any(axis=(1, 2)))
    for z in np.union1d(occupied, occupied + 1).tolist():  # each between the slices z - 1 and z
        slices = mask[max(z - 1, 0) : z + 1]
        shadow = np.any(slices, axis=0)
        y, x = (np.flatnonzero(shadow.any(axis=axis)) for axis in (1, 0))
        voxels = np.zeros((2, y[-1] - y[0] + 3, x[-1] - x[0] + 3), np.uint8)
        # The first and the last slice have an empty partner: its side does not change the area.
        voxels[: len(slices), 1:-1, 1:-1] = slices[:, y[0] : y[-1] + 1, x[0] : x[-1] + 1] != 0
        found = voxels[0] * 16 + voxels[1]
        found = found[:-1] * 4 + found[1:]
        found = found[:, :-1] * 2 + found[:, 1:]
        index = np.flatnonzero((found != 0) & (found != ALL_INSIDE))
        row, column = np.divmod(index, found.shape[1])
        positions.append(np.column_stack([np.full(index.size, z), row + y[0], column + x[0]]))
        codes.append(found.ravel()[index])
    return Surface(np.concatenate(positions), np.concatenate(codes))


def _near(
    own: Positions, other: Positions, spacing: NDArray[np.float64], tolerance_mm: float
) -> NDArray[np.bool_]:
    """Say for each own surfel whether another lies within the tolerance.

    The tree's distances carry the rounding errors of absolute positions, so it only finds
    candidates, slightly beyond the tolerance; `_distances_mm` decides by the nearest of them.

    In one case scipy's distance transform decides otherwise: among neighbours at exactly the
    tolerance on paper, which rounding sets apart, it does not always choose the nearest. With a
    float32 spacing, as in NIfTI headers, and a tolerance in whole mm such distances are exact.
    """
    reach_mm = tolerance_mm + 1e-9 * (tolerance_mm + spacing.max())
    # Surfels are spread evenly: splitting at medians and tight boxes cost more than they save.
    tree = KDTree(other * spacing, balanced_tree=False, compact_nodes=False)
    points = own * spacing
    distances_mm, nearest = tree.query(points, distance_upper_bound=reach_mm)
    found = np.flatnonzero(np.isfinite(distances_mm))
    near = np.zeros(len(own), np.bool_)
    near[found] = _distances_mm(own[found], other[nearest[found]], spacing) <= tolerance_mm
    # What is left lies on the verge. Others may be as near but for rounding, and within the
    # tolerance: 3 steps of 0.4 mm are more than 1.2 mm in binary, one step of 1.2 mm is not.
    verge = found[~near[found]]
    if verge.size:
        candidates = tree.query_ball_point(points[verge], reach_mm)
        owner = np.repeat(verge, [len(indices) for indices in candidates])
        tied_mm = _distances_mm(own[owner], other[np.concatenate(candidates).astype(int)], spacing)
        near[owner[tied_mm <= tolerance_mm]] = True
    return near


def _distances_mm(
    own: Positions, other: Positions, spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return distances with the rounding of scipy.ndimage.distance_transform_edt, bit for bit."""
    offsets_mm = ((other - own) * spacing).T
    distances_mm: NDArray[np.float64] = np.sqrt(np.add.reduce(offsets_mm * offsets_mm, axis=0))
    return distances_mm


def _areas_mm2(spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area of a surfel for each of the 256 codes."""
    faces_mm2 = np.prod(spacing) / spacing
    areas_mm2: NDArray[np.float64] = np.linalg.norm(_normals() * faces_mm2, axis=2).sum(axis=1)
    return areas_mm2


@functools.cache
def _normals() -> NDArray[np.float64]:
    """Return NORMALS_IN_EIGHTHS for every code: (256, 4, 3) in voxel faces, padded with zeros."""
    normals = np.zeros((256, 4, 3))
    mirrored = list(itertools.product((1, -1), repeat=3))
    for code, eighths in NORMALS_IN_EIGHTHS.items():
        inside = (CORNER_BITS & code) != 0
        for axes in itertools.permutations(range(3)):
            turned = np.array(eighths)[:, axes] / 8
            for z, y, x in mirrored:
                corners = inside.transpose(axes)[::z, ::y, ::x]
                same = int(CORNER_BITS[corners].sum())
                normals[[same, ALL_INSIDE - same], : len(turned)] = turned
    return normals
