"""Volumes turned so that their axes point right, anterior and superior (RAS+), as nearly as can be.

The rule is that of nibabel 5.4 (nibabel.orientations.io_orientation), for axes in the order
(z, y, x).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from volumes.grid import Matrix
from volumes.streams import Array, Dtype


@dataclass(frozen=True)
class Orientation:
    """How a stored volume (..., z, y, x) is turned.

    axes: which of the stored z, y, x (0, 1, 2) each axis of the turned volume is. steps: 1 where it
    runs in the same direction, -1 where it runs backwards.
    """

    axes: tuple[int, ...]
    steps: tuple[int, ...] = (1, 1, 1)

    def turned(self, stored: Array) -> Array:
        """A view of a stored volume."""
        z, y, x = self.steps
        return stored.transpose(_last(self.axes, stored.ndim))[..., ::z, ::y, ::x]

    def stored(self, parts: Iterator[Array], shape: Sequence[int], dtype: Dtype) -> Iterator[Array]:
        """Undo the turn of a volume whose parts follow each other along its z.

        shape: that of the stored volume. Where that has another z the parts are collected and come
        as one.
        """
        if self.axes[0] == 0 and self.steps[0] == 1:
            back = _last(np.argsort(self.axes).tolist(), len(shape))
            _, *steps = self.steps
            for part in parts:
                yield part[..., :: steps[0], :: steps[1]].transpose(back)
            return
        whole = np.empty(shape, dtype)
        planes, done = self.turned(whole), 0
        for part in parts:
            depth = part.shape[-3]
            planes[..., done : done + depth, :, :] = part
            done += depth
        yield whole


def _last(axes: Sequence[int], dimensions: int) -> list[int]:
    """The axes of z, y, x among so many dimensions, behind the others."""
    more = dimensions - len(axes)
    return [*range(more), *(more + axis for axis in axes)]


AS_STORED = Orientation((0, 1, 2))


def nearest_ras(affine: Matrix) -> Orientation:
    """How to turn a volume of that affine (index x, y, z to RAS+ mm).

    Raises numpy.linalg.LinAlgError where a number in it is not finite.
    """
    matrix = affine[:3, :3]
    lengths = np.sqrt((matrix * matrix).sum(axis=0))
    left, sizes, right = np.linalg.svd(matrix / np.where(lengths == 0, 1, lengths))
    sound = sizes > sizes.max() * 3 * np.finfo(sizes.dtype).eps
    rotation = left[:, sound] @ right[sound]  # the nearest without shear
    axes, steps = [0, 0, 0], [1, 1, 1]
    free = [0, 1, 2]  # of R, A, S
    # What points most clearly chooses first.
    for stored in np.argsort(-(rotation**2).max(axis=0), kind="stable").tolist():
        column = np.abs(rotation[:, stored])
        target = max(free, key=lambda world: column[world])
        free.remove(target)
        axes[2 - target] = 2 - stored
        steps[2 - target] = -1 if rotation[target, stored] < 0 else 1
    return Orientation(tuple(axes), tuple(steps))
