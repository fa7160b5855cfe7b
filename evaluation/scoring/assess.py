"""Judges one mask: is it sound, and how well does it agree with the reference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct, structs
from numpy.typing import NDArray

from evaluation.errors import EvaluationError
from evaluation.scoring.classes import Scores, score
from evaluation.scoring.lesions import detect
from evaluation.scoring.rules import ScoringRules
from evaluation.states import State
from evaluation.volumes import Volume, read, read_grid
from volumes.grid import Grid, grid_difference


class Accuracy(Struct, frozen=True, forbid_unknown_fields=True):
    """Agreement with the reference, of several classes that which the challenge ranks.

    A case without a sound mask has the worst there is: 0 in all scores, every lesion missed. None:
    undefined, as sensitivity without lesions, or not known, as what such a case would have found.
    """

    dsc: float
    nsd: float
    classes: dict[str, tuple[float, float]]  # DSC and NSD by name
    reference_ml: float
    predicted_ml: float | None
    lesion_count: int  # in the reference
    lesion_f1: float | None
    lesion_sensitivity: float | None
    lesion_precision: float | None
    false_positive_ml: float | None
    false_negative_ml: float


# Where the worst is not what an empty mask has: of a healthy case, that would be the best.
OF_FAILED = {
    "predicted_ml": None,
    "lesion_f1": 0.0,
    "lesion_precision": 0.0,
    "false_positive_ml": None,
}


def check(path: Path, grid: Grid, rules: ScoringRules) -> Volume:
    """Return a mask that the challenge accepts.

    grid: that which the mask must be on. Raises EvaluationError that names the file, what
    is wrong and what would be right. The header is judged before any voxel is decompressed.
    """
    difference = grid_difference(grid, read_grid(path))
    if difference is not None:
        raise EvaluationError(f"{path.name}: not on the scan's grid: its {difference}")
    return _labels(read(path), rules, path.name)


def reference_of(path: Path, rules: ScoringRules) -> Volume:
    """Return a reference mask; raises EvaluationError when it is damaged or has other labels."""
    return _labels(read(path), rules, str(path))


def assess(
    mask: Path | None, reference: Path, grid: Grid, rules: ScoringRules
) -> tuple[State, str, Accuracy]:
    """Judge a mask (None: there is none, for whatever reason) against its reference.

    Returns the state (ok, no_output, bad_output), one line on why it is not ok, or on what is
    unusual about a sound mask, and the accuracy.
    Raises EvaluationError when the reference cannot be used.
    """
    expected = reference_of(reference, rules)
    if mask is None:
        return State.NO_OUTPUT, "no mask", failed(expected, rules)
    try:
        predicted = check(mask, grid, rules)
    except EvaluationError as error:
        return State.BAD_OUTPUT, str(error), failed(expected, rules)
    scores = score(rules, predicted.voxels_zyx, expected.voxels_zyx, expected.grid.spacing_zyx)
    return State.OK, predicted.remark, _accuracy(scores, predicted.voxels_zyx, expected, rules)


def failed(expected: Volume, rules: ScoringRules) -> Accuracy:
    """Return the accuracy of a case without a sound mask."""
    nothing = np.zeros(expected.grid.shape_zyx, np.uint8)
    worst = Scores(0.0, 0.0, {scored.name: (0.0, 0.0) for scored in rules.classes})
    return structs.replace(_accuracy(worst, nothing, expected, rules), **OF_FAILED)


def _accuracy(
    scores: Scores, predicted_zyx: NDArray[Any], expected: Volume, rules: ScoringRules
) -> Accuracy:
    prediction = predicted_zyx == rules.lesion_label
    reference = expected.voxels_zyx == rules.lesion_label
    found = detect(prediction, reference, expected.grid.spacing_zyx, rules.connectivity)
    voxel_ml = expected.grid.voxel_ml
    return Accuracy(
        dsc=scores.dsc,
        nsd=scores.nsd,
        classes=scores.classes,
        reference_ml=int(np.count_nonzero(reference)) * voxel_ml,
        predicted_ml=int(np.count_nonzero(prediction)) * voxel_ml,
        lesion_count=found.reference_lesions,
        lesion_f1=found.f1,
        lesion_sensitivity=found.sensitivity,
        lesion_precision=found.precision,
        false_positive_ml=found.false_positive_ml,
        false_negative_ml=found.false_negative_ml,
    )


def _labels(mask: Volume, rules: ScoringRules, name: str) -> Volume:
    """Return the mask, with whole numbers for voxels that are such numbers stored as floats."""
    allowed, voxels = rules.label_values, mask.voxels_zyx
    whole = voxels.dtype.kind in "ui"
    if not whole and not (np.isfinite(voxels).all() and np.array_equal(voxels, np.rint(voxels))):
        some = "not finite" if not np.isfinite(voxels).all() else "no whole numbers"
        raise EvaluationError(
            f"{name}: holds {voxels.dtype} voxels, some of them {some}; write labels, as uint8"
        )
    lowest, highest = voxels.min(), voxels.max()
    if lowest < min(allowed) or highest > max(allowed):
        raise EvaluationError(
            f"{name}: holds labels from {lowest} to {highest}; allowed are {min(allowed)} to"
            f" {max(allowed)}"
        )
    if whole:
        return mask
    remarks = filter(None, (mask.remark, f"holds {voxels.dtype} voxels, all whole numbers"))
    return replace(mask, voxels_zyx=voxels.astype(np.int16), remark=", ".join(remarks))
