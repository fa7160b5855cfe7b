"""Scans of many lengths, each made from one real CT by interpolating along its length."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volumes import nifti
from volumes.grid import LPS, Grid

# Published sizes: the eight of FLARE's papers, and one beyond them. 119 is the CPU's target.
PUBLISHED_SLICES = (55, 100, 150, 215, 334, 448, 499, 554)
LONG_SLICES, CPU_SLICES = 1500, 119
IN_PLANE_MM = 0.8  # the median of FLARE's scans: the DKFZ network's own spacing
# From so many slices on, so many mm between them: extents as scanners make them.
_SPACING_MM = ((0, 5.0), (101, 2.5), (300, 1.0))
SPACING_RULE = (
    f"{IN_PLANE_MM} mm in plane, 5 mm between up to 100 slices, 2.5 mm up to 299, 1 mm from 300 on"
)


def slice_spacing_mm(slices: int) -> float:
    """Distance between the slices of a scan of so many."""
    return [mm for least, mm in _SPACING_MM if slices >= least][-1]


def interpolate(voxels_zyx: NDArray[np.int16], slices: int) -> NDArray[np.int16]:
    """So many slices from the first to the last of a scan, between neighbours linearly."""
    made = np.empty((slices, *voxels_zyx.shape[1:]), np.int16)
    positions = np.linspace(0, len(voxels_zyx) - 1, slices)
    for section, position in zip(made, positions, strict=True):
        below = min(int(position), len(voxels_zyx) - 2)
        pair = voxels_zyx[below : below + 2].astype(np.float32)
        share = np.float32(position - below)
        section[...] = np.rint(pair[0] * (1 - share) + pair[1] * share)
    return made


def make_scan(source: Path, slices: int, folder: Path) -> Path:
    """The scan `source` with so many slices, alone in a folder of its own; made only once.

    Its header says IN_PLANE_MM and slice_spacing_mm, whatever the source's.
    """
    name = f"{source.name.partition('_')[0]}-{slices}"
    file = folder / name / f"{name}_0000.nii.gz"
    if not file.exists():
        scan, voxels = nifti.read(source)
        longer = interpolate(voxels.astype(np.int16), slices)
        _, _, direction = scan.grid.lps()
        affine = LPS @ scan.grid.affine
        affine[:3, :3] = direction * (IN_PLANE_MM, IN_PLANE_MM, slice_spacing_mm(slices))
        grid = Grid.of_affine((slices, *voxels.shape[1:]), LPS @ affine)
        nifti.write(file, nifti.header_of(grid), longer.dtype, [longer])
    return file


def geometry(file: Path) -> tuple[Sequence[int], Sequence[float]]:
    """Shape and spacing (z, y, x; mm) from a scan's header."""
    header = nifti.read_header(file)
    return header.shape_zyx, header.spacing
