"""Where a picture looks: a scan turned as it is shown, and the lesion that it is about."""

from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray

from evaluation.scoring.components import connected
from evaluation.scoring.lesions import CONNECTIVITY, Box, worst_lesion
from volumes.grid import LPS, Grid

Choice = Literal["largest", "worst"]


@dataclass(frozen=True)
class Turn:
    """How arrays of one grid are turned so that x runs to the patient's left, y to P, z to S.

    An oblique grid is turned to its nearest axes. order: which of the stored axes becomes z, y, x.
    steps: 1, or -1 where such an axis is turned round. spacing_zyx: (3,), mm, of the turned grid.
    """

    order: tuple[int, ...]
    steps: tuple[int, ...]
    spacing_zyx: NDArray[np.float64]

    def __call__(self, stored_zyx: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a (z, y, x) array of that grid."""
        turned = stored_zyx.transpose(self.order)
        return turned[tuple(slice(None, None, step) for step in self.steps)]


@dataclass(frozen=True)
class Focus:
    """Where to look: one slice an axis, and the box of the lesion, in voxels (z, y, x)."""

    slices: tuple[int, int, int]
    low: NDArray[np.int_]
    high: NDArray[np.int_]  # one past the last voxel
    said: str  # what is there, in words


def turn_upright(grid: Grid) -> Turn:
    """Return how to turn a scan and its masks; raises ValueError when its axes span no volume."""
    axes = (LPS @ grid.affine)[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(axes).all() or not lengths.all():
        raise ValueError(f"the scan's axes span no volume: {axes.tolist()}")
    left, sizes, right = np.linalg.svd(axes / lengths)
    if sizes.min() <= sizes.max() * len(sizes) * np.finfo(sizes.dtype).eps:
        raise ValueError(f"the scan's axes span no volume: {axes.tolist()}")
    shares = (left @ right)[::-1, ::-1]  # of the stored z, y, x in the patient's, without shear
    order, steps = np.zeros(3, int), np.ones(3, int)
    taken = np.zeros(3, bool)
    for stored in np.argsort(-np.abs(shares).max(axis=0), kind="stable"):
        patient = np.argmax(np.where(taken, -1, np.abs(shares[:, stored])))
        order[patient], steps[patient] = stored, 1 if shares[patient, stored] > 0 else -1
        taken[patient] = True
    return Turn(tuple(order.tolist()), tuple(steps.tolist()), np.array(grid.spacing_zyx)[order])


def find_focus(
    predicted: NDArray[np.bool_],
    expected: NDArray[np.bool_] | None,
    spacing_zyx: NDArray[np.float64],
    choice: Choice = "largest",
) -> Focus:
    """Find a lesion of the reference, and the slices that cut it widest.

    predicted, expected: masks of one shape (z, y, x); spacing_zyx: mm.
    choice: the largest lesion, or the worst: that with the lowest Dice coefficient with all
    findings that touch it, the larger one where equal. Where the reference is empty or there is
    none, either is the largest predicted lesion; where that is empty too, the middle of the scan.
    """
    if expected is not None and expected.any():
        if choice == "worst":
            return _worst(predicted, expected, spacing_zyx)
        return _largest(expected, spacing_zyx, "lesion")
    if predicted.any():
        kind = "predicted lesion" if expected is None else "false positive"
        return _largest(predicted, spacing_zyx, kind)
    z, y, x = (size // 2 for size in predicted.shape)
    middle = np.array([z, y, x])
    return Focus((z, y, x), middle, middle + 1, "no lesion: the middle of the scan")


def _worst(
    predicted: NDArray[np.bool_], expected: NDArray[np.bool_], spacing_zyx: NDArray[np.float64]
) -> Focus:
    worst, count = worst_lesion(predicted, expected, spacing_zyx)
    how = f"DSC {100 * worst.dice:.1f} %" if worst.dice else "missed"
    said = f"{_one_of('worst', count, 'lesion')}, {worst.volume_ml:.2f} ml, {how}"
    return _cut_widest(worst.inside, worst.box, said)


def _largest(mask: NDArray[np.bool_], spacing_zyx: NDArray[np.float64], kind: str) -> Focus:
    labels, _ = connected(mask, CONNECTIVITY)
    statistics = cc3d.statistics(labels)
    sizes = statistics["voxel_counts"][1:]
    label = 1 + int(np.argmax(sizes))
    box = statistics["bounding_boxes"][label]
    volume_ml = float(sizes[label - 1]) * float(np.prod(spacing_zyx)) / 1000
    said = f"{_one_of('largest', len(sizes), kind)}, {volume_ml:.2f} ml"
    return _cut_widest(labels[box] == label, box, said)


def _cut_widest(lesion: NDArray[np.bool_], box: Box, said: str) -> Focus:
    low, high = np.array([(part.start, part.stop) for part in box]).T
    areas = [lesion.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    z, y, x = (int(start + np.argmax(area)) for start, area in zip(low, areas, strict=True))
    return Focus((z, y, x), low, high, said)


def _one_of(which: str, count: int, kind: str) -> str:
    return f"{which} of {count} {kind}s" if count > 1 else f"the only {kind}"
