"""Scans that are stored in many orders and directions, with headers that say it in many ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]


def affine(axes: str, spacing_xyz: tuple[float, float, float], tilt_degrees: float = 0.0) -> Affine:
    """Voxel index to RAS+ mm for a volume whose axes point, say, to L, P and S, and are tilted."""
    directions = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        positive = "RAS".find(letter)
        row = positive if positive >= 0 else "LPI".index(letter)
        directions[row, column] = 1 if positive >= 0 else -1
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(tilt_degrees) @ directions @ np.diag(spacing_xyz)
    matrix[:3, 3] = (-31.5, 12.25, 100.0)
    return matrix


def _rotation(degrees: float) -> Affine:
    """About two axes in turn, so that no voxel axis stays one of the patient's."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    rotation: Affine = about_z @ about_x
    return rotation


def _sform(image: nibabel.Nifti1Image, matrix: Affine) -> None:
    image.set_sform(matrix, 1)
    image.set_qform(None, 0)


def _qform(image: nibabel.Nifti1Image, matrix: Affine) -> None:
    image.set_sform(None, 0)
    image.set_qform(matrix, 1)


def _neither(image: nibabel.Nifti1Image, matrix: Affine) -> None:
    image.set_sform(None, 0)
    image.set_qform(matrix, 0)


def _another_pixdim(image: nibabel.Nifti1Image, matrix: Affine) -> None:
    _sform(image, matrix)
    image.header["pixdim"][1:4] *= 1.25


SPACING = (1.3, 1.2, 3.5)
# Where the axes point, how far they are tilted, and how the header says it.
ORIENTED: dict[str, tuple[str, float, Callable[[nibabel.Nifti1Image, Affine], None]]] = {
    "RAS": ("RAS", 0, _sform),
    "LPS": ("LPS", 0, _sform),
    "LAI": ("LAI", 0, _sform),
    "sagittal": ("PSR", 0, _sform),
    "coronal": ("LSA", 0, _qform),
    "oblique": ("LPS", 17, _sform),
    "oblique, by its qform": ("RAS", -33, _qform),
    "oblique, half way between two axes": ("LIP", 44, _sform),
    "neither form": ("LPS", 0, _neither),
    "pixdim disagrees": ("RAS", 0, _another_pixdim),
    "pixdim disagrees, turned": ("LSP", 0, _another_pixdim),
}


def write_oriented(file: Path, name: str, stored_xyz: NDArray[np.generic]) -> Path:
    """One of ORIENTED, with voxels (x, y, z) as they are to be stored."""
    axes, tilt, state = ORIENTED[name]
    matrix = affine(axes, SPACING, tilt)
    image = nibabel.Nifti1Image(stored_xyz, matrix)
    state(image, matrix)
    nibabel.save(image, file)
    return file
