"""Is a case fit to be trained on: every finding is one line that names the file and the remedy.

nnU-Net would train on most of what is refused here without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.image import Image, ImageError, read_image
from training.cases import Case
from training.errors import TrainingError
from volumes import nifti
from volumes.grid import grid_difference

# CT of people. In cm or m a scan's voxels measure less, and so does the whole of it; what measures
# more than a person is not read at all.
LEAST_SPACING_MM, MOST_SPACING_MM = 0.15, 20.0
LEAST_EXTENT_MM, MOST_EXTENT_MM = 50.0, 2500.0  # of the longest side
_UNITS = (("cm", 10.0), ("m", 1000.0))
_LESION = 1


@dataclass(frozen=True)
class Checked:
    """What was found in one case; without problems it can be trained on."""

    case: Case
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    lesion_ml: float = 0.0
    stored_as_integers: bool = True  # the mask


def check_all(cases: list[Case], processes: int) -> Iterator[Checked]:
    """Check cases in ``processes`` processes, in order; raises TrainingError if one is killed."""
    if processes == 1:
        yield from map(check, cases)
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        try:
            yield from pool.map(check, cases)
        except BrokenProcessPool:
            raise TrainingError(
                "a process that checks scans was killed, perhaps for memory; "
                "start again with fewer --processes"
            ) from None


def check(case: Case) -> Checked:
    """Read a case's files whole and say all that is wrong with them."""
    try:
        scan = _read(case.scan)
    except ImageError as error:
        return Checked(case, (str(error),))
    problems = [f"{case.scan}: {wrong}" for wrong in _wrong_scan(scan, case.crop_of is not None)]
    remarks = [f"{case.scan}: {note}" for note in scan.notes]
    if case.mask is None:
        return Checked(case, tuple(problems), tuple(remarks))
    try:
        mask = _read(case.mask)
    except ImageError as error:
        return Checked(case, (*problems, str(error)), tuple(remarks))
    difference = grid_difference(scan.header.grid, mask.header.grid)
    if difference:
        problems.append(f"{case.mask}: is not on its scan's grid: its {difference}; resample it")
    remarks += [f"{case.mask}: {note}" for note in mask.notes]
    problems += [f"{case.mask}: {wrong}" for wrong in _wrong_labels(mask.voxels, case.healthy)]
    lesion = int(np.count_nonzero(mask.voxels == _LESION))
    return Checked(
        case,
        tuple(problems),
        tuple(remarks),
        lesion_ml=lesion * float(np.prod(scan.spacing_zyx)) / 1000.0,
        stored_as_integers=mask.voxels.dtype.kind in "ui",
    )


def _read(file: Path) -> Image:
    """Voxels and grid; raises ImageError also for what only nnU-Net's reader refuses."""
    image = read_image(file)
    if isinstance(image.header, nifti.Header) and (reason := image.header.refused_by_itk):
        raise ImageError(f"{file}: nnU-Net's reader refuses it ({reason}); repair its header")
    return image


def _wrong_scan(scan: Image, is_crop: bool) -> Iterator[str]:
    """What is wrong with a scan; the whole scan of a crop has been checked when it was drawn."""
    size, spacing = np.array(scan.voxels.shape[::-1]), np.array(scan.spacing_zyx[::-1])
    if size.min() < 2:
        yield f"has {_numbers(size)} voxels; expected a volume of three dimensions"
    elif not is_crop and not _plausible(size, spacing):
        units = [unit for unit, mm in _UNITS if _plausible(size, spacing * mm)]
        guess = f"is it in {' or '.join(units)}? " if units else ""
        extent = _numbers(size * spacing)
        yield (
            f"voxels of {_numbers(spacing)} and a whole of {extent} mm (x, y, z) are no CT of "
            f"a person; {guess}Write its spacing in mm"
        )


def _plausible(size: NDArray[np.int_], spacing_mm: NDArray[np.float64]) -> bool:
    right_voxels = spacing_mm.min() >= LEAST_SPACING_MM and spacing_mm.max() <= MOST_SPACING_MM
    return bool(right_voxels and LEAST_EXTENT_MM <= (size * spacing_mm).max() <= MOST_EXTENT_MM)


def _wrong_labels(voxels: NDArray[np.generic], healthy: bool) -> Iterator[str]:
    found = np.unique(voxels)
    wrong = [value for value in found if value not in (0, _LESION)]
    if wrong:
        shown = ", ".join(f"{value:g}" for value in wrong[:4]) + (", …" if len(wrong) > 4 else "")
        yield f"holds {shown}; expected 0 and {_LESION} (lesion) alone"
    elif healthy and _LESION in found:
        count = int(np.count_nonzero(voxels == _LESION))
        yield f"holds {count} lesion voxels, but the case is declared healthy; which is right?"
    elif not healthy and _LESION not in found:
        yield (
            "is background alone; if there is no lesion in the scan, declare it with --healthy, "
            "else remove the mask"
        )


def _numbers(values: NDArray[Any]) -> str:
    return " x ".join(f"{value:.6g}" for value in values)
