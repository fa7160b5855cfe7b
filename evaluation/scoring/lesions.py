"""Lesion-wise detection: which lesions were found, and which predicted ones are none.

A lesion is a connected component of the reference mask, a predicted lesion one of the prediction.
Voxels are connected through faces, edges and corners (CONNECTIVITY): in thick slices a lesion
often continues only diagonally, and must not fall apart there.

Matching rule: a lesion is detected if at least one voxel of it is predicted, and a predicted lesion
is true if at least one voxel of it is lesion. That is the rule of autoPET's false positive and
false negative volumes; it needs no threshold and no one-to-one assignment, which would be arbitrary
where lesions merge, and how well a lesion was drawn is the Dice coefficient's business. Therefore
the two are counted apart:

- one predicted lesion across two lesions: two detected, one true;
- two predicted lesions on one lesion: one detected, two true;
- sensitivity = detected lesions / lesions, precision = true predicted lesions / predicted lesions,
  and F1 is the harmonic mean of both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cc3d
import numpy as np
from numpy.typing import NDArray

from evaluation.scoring.metrics import check_shapes, check_spacing

CONNECTIVITY: Final = 26
LISTED = 100  # so many lesions and false positives, the worst of them, are described one by one
SLAB_VOXELS = 2**20  # about so many labels are looked at together: what they need is bounded

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Lesion:
    """A lesion, or a false positive: a predicted lesion without a voxel of a lesion.

    low_zyx, high_zyx: its box in voxels, from low to one past the last. dice: of the lesion with
    all predicted lesions that touch it taken together; 0 where none does, and for false positives.
    """

    low_zyx: Triple
    high_zyx: Triple
    volume_ml: float
    dice: float


@dataclass(frozen=True)
class Detection:
    """What was detected in one case.

    false_positive_ml: volume of the false positives. false_negative_ml: volume of the lesions that
    are not detected. worst_lesions: the LISTED lesions with the lowest Dice, lowest first, among
    equal ones the largest (so the largest missed one leads). worst_false_positives: the LISTED
    largest ones, largest first.
    """

    reference_lesions: int
    detected_lesions: int  # of the reference's
    predicted_lesions: int
    false_positives: int
    false_positive_ml: float
    false_negative_ml: float
    worst_lesions: tuple[Lesion, ...]
    worst_false_positives: tuple[Lesion, ...]

    @property
    def sensitivity(self) -> float | None:
        """Detected lesions / lesions; None without a lesion."""
        return self.detected_lesions / self.reference_lesions if self.reference_lesions else None

    @property
    def precision(self) -> float | None:
        """True predicted lesions / predicted lesions; None without a prediction."""
        if not self.predicted_lesions:
            return None
        return (self.predicted_lesions - self.false_positives) / self.predicted_lesions

    @property
    def f1(self) -> float | None:
        """2 sensitivity precision / (sensitivity + precision).

        None where both masks are empty, 0 where one is or where nothing matches.
        """
        if not self.reference_lesions and not self.predicted_lesions:
            return None
        sensitivity, precision = self.sensitivity or 0.0, self.precision or 0.0
        if not sensitivity or not precision:
            return 0.0
        return 2 * sensitivity * precision / (sensitivity + precision)


@dataclass(frozen=True)
class _Components:
    """The connected components of a mask in a crop; `sizes`, `low` and `high` start with the first.

    labels: the crop, 0 outside, components from 1. sizes: (count,) voxels. low, high: (count, 3),
    boxes in the crop, from low to one past the last voxel.
    """

    labels: NDArray[np.unsignedinteger]
    sizes: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]


def detect(
    prediction: NDArray[np.generic],
    reference: NDArray[np.generic],
    spacing_zyx: Sequence[float] | NDArray[np.floating],
) -> Detection:
    """Match the lesions of a reference mask with those of a predicted one.

    prediction, reference: arrays of one shape (z, y, x) and any bool or integer type; every value
    other than 0 is lesion. spacing_zyx: mm.
    Raises ValueError where the shapes differ or are not 3D, and for an impossible spacing.

    Source of the matching rule and of both volumes (there with connectivity 18): val_script.py of
    https://github.com/lab-midas/autoPET.
    """
    check_shapes(prediction, reference, ndim=3)
    voxel_ml = float(np.prod(check_spacing(spacing_zyx))) / 1000
    crop = _crop(prediction, reference)
    start = np.array([part.start for part in crop])
    predicted, lesions = _components(prediction[crop]), _components(reference[crop])
    lesion, touching, shared = _contingency(reference[crop], lesions, predicted)
    count = lesions.sizes.size
    cover = np.bincount(lesion, predicted.sizes[touching], minlength=count)
    dice = 2 * np.bincount(lesion, shared, minlength=count) / (lesions.sizes + cover)
    missed = np.flatnonzero(dice == 0)
    false = np.setdiff1d(np.arange(predicted.sizes.size), touching)
    false = false[np.argsort(-predicted.sizes[false], kind="stable")]
    return Detection(
        reference_lesions=count,
        detected_lesions=count - missed.size,
        predicted_lesions=predicted.sizes.size,
        false_positives=false.size,
        false_positive_ml=float(predicted.sizes[false].sum()) * voxel_ml,
        false_negative_ml=float(lesions.sizes[missed].sum()) * voxel_ml,
        worst_lesions=_described(
            lesions, np.lexsort((-lesions.sizes, dice)), dice, start, voxel_ml
        ),
        worst_false_positives=_described(
            predicted, false, np.zeros(predicted.sizes.size), start, voxel_ml
        ),
    )


def healthy_false_positive_rate(
    reference_lesions: Sequence[float], predicted_lesions: Sequence[float]
) -> float | None:
    """Return the share of cases without a lesion in which one is predicted.

    reference_lesions, predicted_lesions: one number a case, a count or a volume: only whether it is
    0 matters. None without a healthy case. Raises ValueError where the lengths differ.
    """
    pairs = zip(reference_lesions, predicted_lesions, strict=True)
    alarms = [predicted > 0 for reference, predicted in pairs if reference == 0]
    return sum(alarms) / len(alarms) if alarms else None


def _crop(*masks: NDArray[np.generic]) -> tuple[slice, ...]:
    """Return the smallest box that holds all masks of one shape; an empty one for empty masks."""
    crop = []
    for axis in range(3):
        across = tuple({0, 1, 2} - {axis})
        occupied = np.flatnonzero(np.logical_or.reduce([m.any(axis=across) for m in masks]))
        crop.append(slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0))
    return tuple(crop)


def _components(mask: NDArray[np.generic]) -> _Components:
    inside = np.ascontiguousarray(mask != 0)
    labels, count = cc3d.connected_components(inside, connectivity=CONNECTIVITY, return_N=True)
    sizes = np.zeros(count, np.int64)
    low = np.full((count, 3), np.iinfo(np.int64).max)
    high = np.zeros((count, 3), np.int64)
    # As cc3d.statistics, which takes longer than all the rest where lesions are few and small.
    for starts, lengths, (owners,) in _runs(inside, labels):
        np.add.at(sizes, owners, lengths)
        ends = np.unravel_index(starts + lengths - 1, labels.shape)
        for axis, index in enumerate(np.unravel_index(starts, labels.shape)):
            np.minimum.at(low[:, axis], owners, index)
            np.maximum.at(high[:, axis], owners, ends[axis] + 1)
    return _Components(labels, sizes, low, high)


def _runs(
    mask: NDArray[np.generic], *volumes: NDArray[np.unsignedinteger]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Find the runs along x in which no volume's label changes and none is 0, slab by slab.

    mask: (z, y, x), not 0 wherever all labels are not: much faster to search than they are.
    volumes: labels, C-contiguous, of the same shape. Yields the flat indices of the runs' first
    voxels (n,), their lengths (n,), and their components from 0 in each volume (volumes, n).
    """
    _, height, width = mask.shape
    slices = max(1, SLAB_VOXELS // max(1, height * width))
    row_starts = np.arange(slices * height * width) % max(1, width) == 0
    for z in range(0, len(mask), slices):
        voxels = np.flatnonzero(mask[z : z + slices] != 0)
        for volume in volumes:
            inside = volume[z : z + slices].reshape(-1)[voxels] != 0
            voxels = voxels if inside.all() else voxels[inside]
        if not voxels.size:
            continue
        labels = [volume[z : z + slices].reshape(-1)[voxels] for volume in volumes]
        first = row_starts[voxels]
        first[0] = True
        first[1:] |= voxels[1:] != voxels[:-1] + 1
        for own in labels:
            first[1:] |= own[1:] != own[:-1]
        starts = np.flatnonzero(first)
        lengths = np.diff(starts, append=voxels.size)
        owners = np.array([own[starts] for own in labels], np.int64) - 1
        yield z * height * width + voxels[starts], lengths, owners


def _contingency(
    reference: NDArray[np.generic], lesions: _Components, predicted: _Components
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return lesion, predicted lesion and number of shared voxels for every pair that shares any.

    Only these pairs: the full table of two noisy masks would not fit into memory.
    """
    count = predicted.sizes.size
    pairs, shared = np.empty((2, 0), np.int64)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    waiting = 0
    for _, lengths, (lesion, touching) in _runs(reference, lesions.labels, predicted.labels):
        found.append(_totals(lesion * count + touching, lengths))
        waiting += found[-1][0].size
        # A pair in many slabs is found in each. To add these up after every one would be slow.
        if waiting > max(pairs.size, SLAB_VOXELS):
            pairs, shared = _merged((pairs, shared), *found)
            found, waiting = [], 0
    pairs, shared = _merged((pairs, shared), *found)
    lesion, touching = np.divmod(pairs, max(1, count))
    return lesion, touching, shared


def _totals(
    keys: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each key once, in order, with the sum of its counts."""
    unique, index = np.unique(keys, return_inverse=True)
    return unique, np.bincount(index, counts, minlength=unique.size).astype(np.int64)


def _merged(
    *parts: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    keys, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return _totals(keys, counts)


def _described(
    components: _Components,
    order: NDArray[np.int64],
    dice: NDArray[np.float64],
    start_zyx: NDArray[np.int64],
    voxel_ml: float,
) -> tuple[Lesion, ...]:
    """Describe the first LISTED components of an order, with boxes in the whole volume."""

    def corner(values: NDArray[np.int64]) -> Triple:
        z, y, x = (values + start_zyx).tolist()
        return z, y, x

    return tuple(
        Lesion(
            low_zyx=corner(components.low[i]),
            high_zyx=corner(components.high[i]),
            volume_ml=float(components.sizes[i]) * voxel_ml,
            dice=float(dice[i]),
        )
        for i in order[:LISTED].tolist()
    )
