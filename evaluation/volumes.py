"""Scans and masks as a judge reads them: nothing believed, no value changed.

ITK, and so SimpleITK, fills a truncated file with zeros and reads NaN as 0; a judge must see both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import EvaluationError
from volumes import nifti
from volumes.errors import VolumeError
from volumes.grid import Grid


@dataclass(frozen=True)
class Volume:
    """A grid and the voxels on it, as (z, y, x). remark: what is unusual about its file."""

    grid: Grid
    voxels_zyx: NDArray[Any]
    remark: str = ""


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Make EvaluationError, with the file's name, of what a reader says."""
    try:
        yield
    except VolumeError as error:
        raise EvaluationError(f"{path}: {error}") from error


def read_grid(path: Path) -> Grid:
    """Read the grid of a .nii or .nii.gz file, none of its voxels.

    Raises EvaluationError when there is no such regular file, or it is not a NIfTI volume with one
    value a voxel in 3 dimensions.
    """
    with naming(path):
        return nifti.read_header(path, strict=True).grid


def read(path: Path) -> Volume:
    """Read a .nii or .nii.gz file; raises EvaluationError as `read_grid`, or when it is damaged.

    Voxels keep their type, unless the header asks to scale them: then they are float64. Little more
    is decompressed than the header asks for; whether that is sensible, `read_grid` lets one see.
    """
    with naming(path):
        header, voxels = nifti.read(path, strict=True)
    slope, intercept = header.scaling
    if (slope, intercept) != (1.0, 0.0):
        voxels = voxels.astype(np.float64) * slope + intercept
    shape = header.shape_xyz
    return Volume(header.grid, voxels, f"its shape is {shape}" if len(shape) > 3 else "")


def lesion_ml(volume: Volume) -> float:
    """Return the volume of all voxels that are not 0, in millilitres."""
    return int(np.count_nonzero(volume.voxels_zyx)) * volume.grid.voxel_ml
