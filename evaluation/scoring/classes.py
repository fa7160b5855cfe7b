"""DSC and NSD of each class, as the FLARE organisers' scripts have them.

Source: FLARE23/FLARE23_DSC_NSD_Eval.py and FLARE24/T1_FLARE24_DSC_NSD_Eval.py of
https://github.com/JunMa11/FLARE. For each class, in this order:

1. in neither mask: DSC = NSD = 1;
2. in only one of them: DSC = NSD = 0;
3. otherwise DSC, and NSD at the class's tolerance, which is 0 where DSC is below min_dsc_for_nsd.

Both are rounded. FLARE 2024 Task 1 asks before all that whether the prediction holds a label above
its own, and then gives 0 and 0 (higher_labels_void).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from evaluation.scoring.metrics import check_shapes, check_spacing, dice
from evaluation.scoring.rules import ScoredClass, ScoringRules
from evaluation.scoring.surface import surface_dice

Pair = tuple[float, float]  # DSC and NSD, each from 0 (worst) to 1
WORST, BEST = (0.0, 0.0), (1.0, 1.0)
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Scores:
    """One case's scores by class; `dsc` and `nsd`, those of the lesion class, are what ranks."""

    dsc: float
    nsd: float
    classes: dict[str, Pair]


def score(
    rules: ScoringRules,
    prediction: NDArray[np.generic],
    reference: NDArray[np.generic],
    spacing_zyx: Sequence[float] | NDArray[np.floating],
) -> Scores:
    """Score one case as the organisers' script does.

    prediction, reference: label maps of one shape (z, y, x) and any real type. spacing_zyx: mm, of
    the reference's header (pixdim).
    Raises ValueError where the shapes differ or are not 3D, for an impossible spacing, and where
    higher_labels_void holds and the reference itself has such a label.

    The scripts' arrays are (x, y, z): what they slice along axis 2 is axis 0 here. Where a class of
    labelled_slices_only has a single slice in the reference, the script's slab is empty and the
    script crashes; that one slice is scored instead.
    """
    check_shapes(prediction, reference, ndim=3)
    spacing = check_spacing(spacing_zyx)
    predicted, expected = _cast(prediction, rules.dtype), _cast(reference, rules.dtype)
    highest = max(rules.label_values)
    if rules.higher_labels_void:
        if expected.max() > highest:
            raise ValueError(
                f"reference holds the label {expected.max()}: allowed is up to {highest}"
            )
        if predicted.max() > highest:
            return Scores(*WORST, {scored.name: WORST for scored in rules.classes})
    # One pass finds each label's box (None where there is none); nothing looks outside it again.
    predicted_boxes, expected_boxes = (find_objects(m, highest) for m in (predicted, expected))
    classes: dict[str, Pair] = {}
    for scored in rules.classes:
        found = predicted_boxes[scored.label - 1], expected_boxes[scored.label - 1]
        if None in found:
            classes[scored.name] = BEST if found == (None, None) else WORST
        else:
            box = _evaluated_box(scored, *found)
            classes[scored.name] = _pair(rules, scored, predicted[box], expected[box], spacing)
    (lesion,) = (c.name for c in rules.classes if c.label == rules.lesion_label)
    return Scores(*classes[lesion], classes)


def _evaluated_box(scored: ScoredClass, predicted: Box, expected: Box) -> Box:
    """Return the box around both boxes of a class, or the part of it that counts."""
    z, y, x = (
        slice(min(p.start, e.start), max(p.stop, e.stop))
        for p, e in zip(predicted, expected, strict=True)
    )
    if scored.labelled_slices_only:
        first, end = expected[0].start, expected[0].stop
        z = slice(first, max(end - 1, first + 1))
    return z, y, x


def _pair(
    rules: ScoringRules,
    scored: ScoredClass,
    predicted_labels: NDArray[np.generic],
    expected_labels: NDArray[np.generic],
    spacing: NDArray[np.float64],
) -> Pair:
    predicted, expected = predicted_labels == scored.label, expected_labels == scored.label
    dsc = dice(predicted, expected)
    if dsc < rules.min_dsc_for_nsd:
        nsd = 0.0
    else:
        nsd = surface_dice(predicted, expected, spacing, scored.tolerance_mm)
    # NumPy's rounding, as in the scripts: that of Python's floats differs where the fifth is a 5.
    return float(np.round(dsc, rules.decimals)), float(np.round(nsd, rules.decimals))


def _cast(labels: NDArray[np.generic], dtype: str) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):  # NaN: what it becomes is the platform's, there and here
        return labels.astype(dtype, copy=False)
