"""Lesion-wise detection: which lesions were found, and which predicted ones are none.

A lesion is a connected component of the reference mask, a predicted lesion one of the prediction.
Voxels are connected through faces, edges and corners (CONNECTIVITY) unless a challenge says
otherwise: in thick slices a lesion often continues only diagonally, and must not fall apart there.

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

import numpy as np
from numpy.typing import NDArray

from evaluation.scoring.components import connected
from evaluation.scoring.metrics import check_shapes, check_spacing
from evaluation.scoring.rules import Connectivity

CONNECTIVITY: Final[Connectivity] = 26
SLAB_VOXELS = 2**20  # about so many labels are looked at together: what they need is bounded

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Detection:
    """What was detected in one case.

    false_positives: predicted lesions without a voxel of a lesion, false_positive_ml: their volume.
    false_negative_ml: volume of the lesions that are not detected.
    """

    reference_lesions: int
    detected_lesions: int  # of the reference's
    predicted_lesions: int
    false_positives: int
    false_positive_ml: float
    false_negative_ml: float

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
        sensitivity, precision = self.sensitivity, self.precision
        if not sensitivity or not precision:
            return None if sensitivity is precision is None else 0.0
        return 2 * sensitivity * precision / (sensitivity + precision)


@dataclass(frozen=True)
class Lesion:
    """A lesion of a reference mask.

    box: around it in the whole volume, (z, y, x). inside: where it is in that box. dice: with all
    predicted lesions that touch it taken together; 0 where none does.
    """

    box: Box
    inside: NDArray[np.bool_]
    volume_ml: float
    dice: float


@dataclass(frozen=True)
class _Components:
    """The connected components of a mask: 0 outside, from 1 on; sizes (count,) in voxels."""

    labels: NDArray[np.unsignedinteger]
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class _Match:
    """Which components touch, and which do not, in the part of the volume that holds any.

    dice: (lesions,), of each with all predicted ones that touch it. false: (predicted,), whether
    one touches no lesion.
    """

    crop: Box
    voxel_ml: float
    lesions: _Components
    predicted: _Components
    dice: NDArray[np.float64]
    false: NDArray[np.bool_]


def detect(
    prediction: NDArray[np.generic],
    reference: NDArray[np.generic],
    spacing_zyx: Sequence[float] | NDArray[np.floating],
    connectivity: Connectivity = CONNECTIVITY,
) -> Detection:
    """Match the lesions of a reference mask with those of a predicted one.

    prediction, reference: arrays of one shape (z, y, x) and any bool or integer type; every value
    other than 0 is lesion. spacing_zyx: mm. connectivity: 6 (faces), 18 (and edges) or 26.
    Raises ValueError where the shapes differ or are not 3D, and for an impossible spacing.

    Source of the matching rule and of both volumes (there with connectivity 18): val_script.py of
    https://github.com/lab-midas/autoPET.
    """
    found = _match(prediction, reference, spacing_zyx, connectivity)
    missed, false = found.lesions.sizes[found.dice == 0], found.predicted.sizes[found.false]
    return Detection(
        reference_lesions=found.lesions.sizes.size,
        detected_lesions=found.lesions.sizes.size - missed.size,
        predicted_lesions=found.predicted.sizes.size,
        false_positives=false.size,
        false_positive_ml=float(false.sum()) * found.voxel_ml,
        false_negative_ml=float(missed.sum()) * found.voxel_ml,
    )


def worst_lesion(
    prediction: NDArray[np.generic],
    reference: NDArray[np.generic],
    spacing_zyx: Sequence[float] | NDArray[np.floating],
) -> tuple[Lesion, int]:
    """Return the lesion with the lowest Dice, the largest of several, and how many there are.

    Arguments and errors are those of `detect`; raises ValueError where there is no lesion, too.
    """
    found = _match(prediction, reference, spacing_zyx, CONNECTIVITY)
    count = found.lesions.sizes.size
    if not count:
        raise ValueError("reference holds no lesion")
    worst = int(np.lexsort((-found.lesions.sizes, found.dice))[0])
    inside = found.lesions.labels == worst + 1
    own = _crop(inside)
    return Lesion(
        box=tuple(
            slice(whole.start + part.start, whole.start + part.stop)
            for whole, part in zip(found.crop, own, strict=True)
        ),
        inside=inside[own],
        volume_ml=float(found.lesions.sizes[worst]) * found.voxel_ml,
        dice=float(found.dice[worst]),
    ), count


def _crop(*masks: NDArray[np.generic]) -> Box:
    """Return the smallest box that holds all masks of one shape; an empty one for empty masks."""
    crop = []
    for axis in range(3):
        across = tuple({0, 1, 2} - {axis})
        occupied = np.flatnonzero(np.logical_or.reduce([m.any(axis=across) for m in masks]))
        crop.append(slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0, 0))
    return tuple(crop)


def _match(
    prediction: NDArray[np.generic],
    reference: NDArray[np.generic],
    spacing_zyx: Sequence[float] | NDArray[np.floating],
    connectivity: Connectivity,
) -> _Match:
    check_shapes(prediction, reference, ndim=3)
    voxel_ml = float(np.prod(check_spacing(spacing_zyx))) / 1000
    crop = _crop(prediction, reference)
    predicted = _components(prediction[crop], connectivity)
    lesions = _components(reference[crop], connectivity)
    lesion, touching, shared = _contingency(lesions, predicted)
    count = lesions.sizes.size
    cover = np.bincount(lesion, predicted.sizes[touching], minlength=count)
    dice = 2 * np.bincount(lesion, shared, minlength=count) / (lesions.sizes + cover)
    false = np.ones(predicted.sizes.size, np.bool_)
    false[touching] = False
    return _Match(crop, voxel_ml, lesions, predicted, dice, false)


def _components(mask: NDArray[np.generic], connectivity: Connectivity) -> _Components:
    inside = mask != 0
    labels, count = connected(inside, connectivity)
    sizes = np.zeros(count + 1, np.int64)
    # As cc3d.statistics, which takes longer than all the rest where lesions are few and small.
    for slab in _slabs(labels):
        sizes += np.bincount(labels[slab][inside[slab]], minlength=count + 1)
    return _Components(labels, sizes[1:])


def _contingency(
    lesions: _Components, predicted: _Components
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return lesion, predicted lesion and number of shared voxels for every pair that shares any.

    Only these pairs: the full table of two noisy masks would not fit into memory.
    """
    base = predicted.sizes.size + 1
    found = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for slab in _slabs(lesions.labels):
        own, other = lesions.labels[slab], predicted.labels[slab]
        both = (own != 0) & (other != 0)
        keys = own[both].astype(np.int64) * base + other[both]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))  # of runs, which are fewer to sort
        found.append(_totals((keys[starts], np.diff(starts, append=keys.size))))
        # A pair in many slabs is found in each. To add these up after every one would be slow.
        if sum(keys.size for keys, _ in found[1:]) > max(found[0][0].size, SLAB_VOXELS):
            found = [_totals(*found)]
    pairs, shared = _totals(*found)
    return pairs // base - 1, pairs % base - 1, shared


def _slabs(labels: NDArray[np.unsignedinteger]) -> Iterator[slice]:
    """Yield slices along z that each hold about SLAB_VOXELS."""
    thick = max(1, SLAB_VOXELS // max(1, labels[:1].size))
    for z in range(0, len(labels), thick):
        yield slice(z, z + thick)


def _totals(
    *parts: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each of several parts' keys once, in order, with the sum of its counts."""
    keys, counts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    unique, index = np.unique(keys, return_inverse=True)
    return unique, np.bincount(index, counts, minlength=unique.size).astype(np.int64)
