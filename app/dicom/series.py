"""Which slices of a folder make a CT series, and in which order and grid.

Order, spacing and origin are those of ITK's ImageSeriesReader, which leaves a tilt out of the grid
and does no more than warn of a gap.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.dicom.files import is_dicom, naming, parsing, read_elements, shown
from app.dicom.slices import KEYWORDS, Slice, is_slice, slice_of
from app.image import ImageError
from volumes.grid import (
    DIRECTION_TOLERANCE,
    LPS,
    POSITION_TOLERANCE_MM,
    SPACING_TOLERANCE_MM,
    Grid,
    Matrix,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_UNEVEN = 0.1  # of a step, how far a slice may be from its place on an even grid


@dataclass(frozen=True)
class Series:
    """Slices in the order of their planes, their grid, and what was unusual about them."""

    slices: tuple[Slice, ...]
    grid: Grid
    notes: tuple[str, ...]


def find_series(
    folder: Path, uid: str | None, same_image: Callable[[Slice, Slice], bool]
) -> Series:
    """The one CT series of a folder, or that of ``uid``.

    same_image: whether two slices at one position have equal voxels; the second is then left out.
    Raises ImageError: one line for a file that cannot be a slice or for what is wrong with their
    places, or where several series are there, one line for each.
    """
    found, notes = _headers(folder)
    slices = []
    for file, header in _chosen(folder, found, uid):
        with naming(file), parsing():
            slices.append(slice_of(file, header))
    _check_alike(slices)
    slices.sort(key=lambda s: s.height)
    kept, copies = _without_copies(slices, same_image)
    if copies:
        notes.append(f"left out as copies of other slices: {_some(copies)}")
    if len(kept) < 2:
        raise ImageError(f"{folder}: its CT series has one slice, expected two or more; add them")
    step, straight = _steps(folder, kept)
    if step is not straight:
        tilt = math.degrees(math.acos(step @ straight / (step @ step)))
        notes.append(
            f"gantry tilted by {tilt:.1f} degrees: segmented as acquired; a NIfTI mask's sform (for"
            " nibabel) is sheared, its qform (for ITK) is not; a .dcm mask has all slices in place"
        )
    return Series(tuple(kept), _grid(kept, step), tuple(notes))


def _headers(folder: Path) -> tuple[dict[str, list[tuple[Path, Dataset]]], list[str]]:
    """The files of every CT series with their headers, and what is to be said of other files."""
    found: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    foreign, aside = [], []
    for file in sorted(folder.iterdir()):
        if file.is_dir() or file.name.startswith(".") or file.name == "DICOMDIR":
            continue
        if not is_dicom(file):
            foreign.append(file.name)
            continue
        with naming(file), parsing():
            header = read_elements(file, KEYWORDS)
            if is_slice(header):
                found[str(header.SeriesInstanceUID)].append((file, header))
            else:
                aside.append(file.name)
    notes = [f"set aside, as no slices of a CT: {_some(aside)}"] if aside else []
    if foreign:
        notes.append(f"ignored, as not DICOM: {_some(foreign)}")
    return found, notes


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({shown(', '.join(names))})"


def _chosen(
    folder: Path, found: dict[str, list[tuple[Path, Dataset]]], uid: str | None
) -> list[tuple[Path, Dataset]]:
    if not found:
        raise ImageError(f"{folder}: holds no slice of a CT; name a file or a series' folder")
    if uid is None and len(found) == 1:
        return next(iter(found.values()))
    if uid in found:
        return found[uid]
    remedy = "choose with --series UID" if uid is None else f"none is --series {shown(uid)}"
    with naming(folder), parsing():
        lines = [
            f"{folder}: holds series {shown(number)},"
            f' "{shown(slices[0][1].get("SeriesDescription", ""))}",'
            f" {len(slices)} slices; {remedy}"
            for number, slices in found.items()
        ]
    raise ImageError(*lines)


def _check_alike(slices: Sequence[Slice]) -> None:
    """Raise ImageError unless all slices have the first one's size, spacing and orientation."""
    first = slices[0]
    for other in slices[1:]:
        if other.shape != first.shape:
            what = "Rows and Columns"
        elif not np.allclose(other.spacing, first.spacing, rtol=0, atol=SPACING_TOLERANCE_MM):
            what = "PixelSpacing"
        elif not np.allclose(other.axes, first.axes, rtol=0, atol=DIRECTION_TOLERANCE):
            what = "ImageOrientationPatient"
        else:
            continue
        raise ImageError(
            f"{other.file}: its {what} differ from those of {first.file.name} in the same series;"
            " put slices that belong together into a folder of their own"
        )


def _without_copies(
    slices: Iterable[Slice], same_image: Callable[[Slice, Slice], bool]
) -> tuple[list[Slice], list[str]]:
    """One slice at every position, and the names of equal ones that are left out."""
    kept: list[Slice] = []
    copies = []
    for slice_ in slices:
        if not kept or slice_.height - kept[-1].height > POSITION_TOLERANCE_MM:
            kept.append(slice_)
        elif same_image(kept[-1], slice_):
            copies.append(slice_.file.name)
        else:
            raise ImageError(
                f"{slice_.file}: another image than {kept[-1].file.name} at the same position"
                f" ({slice_.height:g} mm along the series); leave one acquisition in the folder"
            )
    return kept, copies


def _steps(folder: Path, slices: Sequence[Slice]) -> tuple[Matrix, Matrix]:
    """From one plane to the next, LPS+ mm, and the same along the normal.

    They are the same vector unless the gantry is tilted.

    Raises ImageError where planes are not evenly spaced, naming the two with the oddest step.
    """
    positions = np.array([s.position for s in slices])
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    places = np.arange(len(slices))[:, None]
    size = float(np.linalg.norm(step))
    if np.linalg.norm(positions - positions[0] - places * step, axis=1).max() > _UNEVEN * size:
        steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        usual = float(np.median(steps))
        odd = int(np.argmax(np.abs(steps - usual)))
        before, after = slices[odd], slices[odd + 1]
        missing = round(float(steps[odd]) / usual) - 1
        finding = f"{missing} missing" if missing > 0 else "uneven spacing"
        raise ImageError(
            f"{folder}: {steps[odd]:g} mm from {before.file.name} to {after.file.name}, elsewhere"
            f" {usual:g} mm ({finding}); add what is missing, or resample the series to even slices"
        )
    straight = slices[0].normal * size
    aside = np.linalg.norm(places * (straight - step), axis=1).max()
    return (straight if aside <= _UNEVEN * min(slices[0].spacing) else step), straight


def _grid(slices: Sequence[Slice], step: Matrix) -> Grid:
    first = slices[0]
    affine = np.eye(4)
    affine[:3, :2] = (first.axes * np.array(first.spacing)[:, None]).T
    affine[:3, 2], affine[:3, 3] = step, first.position
    return Grid.of_affine((len(slices), *first.shape), LPS @ affine)
