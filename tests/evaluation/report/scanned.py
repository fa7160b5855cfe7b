"""One simulated case that also has its scan, mask and reference, and so its pictures."""

from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from evaluation.cases import find
from evaluation.pictures import drawing
from evaluation.states import State
from evaluation.store import Store
from tests.evaluation.challenges import FLARE24
from tests.submissions import save

CASE = "FLARE_Ts_0001"
SHAPE = (96, 80, 40)  # x, y, z
AFFINE = np.diag([-2.0, -2.0, 4.0, 1.0])
LESION = (30.0, 40.0, 20.0)  # its centre, in voxels


def ball(centre: tuple[float, float, float], radius_mm: float) -> NDArray[np.bool_]:
    """A ball on the scan's grid."""
    grid = np.meshgrid(*(np.arange(size) for size in SHAPE), indexing="ij")
    spacing = np.abs(np.diag(AFFINE))[:3]
    offsets = [(axis - at) * mm for axis, at, mm in zip(grid, centre, spacing, strict=True)]
    inside: NDArray[np.bool_] = np.sum(np.square(offsets), axis=0) < radius_mm**2
    return inside


def write_scanned_case(results: Path, team: str, data: Path) -> None:
    """Write CASE's scan to data/scans, its reference to data/labels, and a team's mask of it.

    The scan is a body of 50 HU with a lesion of 120 HU in it; the mask is 4 mm beside the lesion.
    """
    rng = np.random.default_rng(0)
    body = ball((48, 40, 20), 70)
    lesion, found = ball(LESION, 18), ball((LESION[0] + 2, *LESION[1:]), 18)
    hounsfield = np.where(body, 50.0, -1000.0) + np.where(lesion, 70, 0) + rng.normal(0, 8, SHAPE)
    store = Store(results / team)
    save(data / "scans" / f"{CASE}_0000.nii.gz", hounsfield.astype(np.int16), AFFINE)
    save(data / "labels" / f"{CASE}.nii.gz", lesion.astype(np.uint8), AFFINE)
    save(store.mask(CASE), found.astype(np.uint8), AFFINE)
    one = store.load(CASE)
    assert one is not None
    assert one.accuracy is not None
    one = replace(one, state=State.OK, accuracy=replace(one.accuracy, lesion_count=1, dsc=0.87))
    store.save(one)
    problems = drawing.draw(store, find(data / "scans", data / "labels"), [one], FLARE24)
    assert not problems
