"""The best central ellipsoid, against masks that are one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from training.ellipsoid import best


def write_ellipsoid(
    file: Path,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    axes_mm: tuple[float, float, float],
    shift: int = 0,
) -> Path:
    """An ellipsoid in the middle of a scan, or ``shift`` voxels beside it; all z, y, x."""
    middle = [(n - 1) / 2 + shift for n in shape]
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    parts = zip(grid, middle, axes_mm, spacing, strict=True)
    squares = [((c - m) * mm / (axis / 2)) ** 2 for c, m, axis, mm in parts]
    inside = np.less_equal(squares[0] + squares[1] + squares[2], 1)
    image = sitk.GetImageFromArray(inside.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, file)
    return file


def test_a_fraction_of_the_sides_is_found(tmp_path: Path) -> None:
    masks = [
        write_ellipsoid(tmp_path / "a.nii.gz", (40, 60, 50), (2, 1, 1), (40, 30, 25)),
        write_ellipsoid(tmp_path / "b.nii.gz", (51, 31, 41), (1, 1, 3), (25.5, 15.5, 61.5)),
    ]
    found = best(masks)
    assert (found.margin_mm, found.fraction) == (0, 0.5)
    assert found.dsc == pytest.approx((1, 1), abs=0.002)


def test_a_margin_is_found(tmp_path: Path) -> None:
    """Sides of different length less the same margin are no one fraction of them."""
    masks = [
        write_ellipsoid(tmp_path / "a.nii.gz", (100, 100, 100), (1, 1, 1), (70, 70, 70)),
        write_ellipsoid(tmp_path / "b.nii.gz", (50, 50, 50), (1, 1, 1), (20, 20, 20)),
    ]
    found = best(masks)
    assert (found.margin_mm, found.fraction) == (15, 1)
    assert found.dsc == pytest.approx((1, 1), abs=0.002)


def test_the_score_is_the_dice_of_its_voxels(tmp_path: Path) -> None:
    """One lesion beside the middle: whichever ellipsoid is chosen, its DSC is recounted."""
    shape, spacing = (30, 30, 30), (1.0, 1.0, 1.0)
    mask = write_ellipsoid(tmp_path / "a.nii.gz", shape, spacing, (12, 12, 12), shift=3)
    found = best([mask])
    axis = found.fraction * (30 - 2 * found.margin_mm)
    drawn = write_ellipsoid(tmp_path / "b.nii.gz", shape, spacing, (axis, axis, axis))
    ours, theirs = (sitk.GetArrayFromImage(sitk.ReadImage(f)) > 0 for f in (drawn, mask))
    assert found.mean == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
    assert 0.2 < found.mean < 0.7
