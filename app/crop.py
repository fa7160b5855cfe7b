"""Which part of a scan is looked at: the box of what is not zero, as in nnU-Net, or of the body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Voxels = NDArray[Any]
Box = tuple[slice, ...]

_AIR_HU = -500  # halfway between the air of a room and water; skin, fat and the couch are above it


def nonzero_box(volumes: Sequence[Voxels]) -> Box:
    """Bounding box of the voxels that are not zero in any channel; all of it if every one is."""
    return box_where(volumes[0].shape, lambda i: np.logical_or.reduce([v[i] != 0 for v in volumes]))


def body_box(volume: Voxels) -> Box:
    """Bounding box of what is not air in a CT (HU), the couch included; all of it if all is air."""
    return box_where(volume.shape, lambda i: volume[i] > _AIR_HU)


def box_where(shape: Sequence[int], inside: Callable[[int], NDArray[np.bool_]]) -> Box:
    """Bounding box of ``inside``, which gives one section (of the first axis) at a time.

    All of it where nothing is inside.
    """
    depth, *plane = shape
    rows, columns = (np.zeros(n, bool) for n in plane)

    def occupied(i: int) -> bool:
        section = inside(i)
        of_rows = section.any(1)
        np.logical_or(rows, of_rows, out=rows)
        np.logical_or(columns, section.any(0), out=columns)
        return bool(of_rows.any())

    first = next((i for i in range(depth) if occupied(i)), None)
    if first is None:
        return tuple(slice(0, n) for n in shape)
    last = next(i for i in range(depth - 1, -1, -1) if occupied(i))
    for i in range(first, last):
        if rows[[0, -1]].all() and columns[[0, -1]].all():
            break  # no wider than this
        occupied(i)
    edges = [np.flatnonzero(line) for line in (rows, columns)]
    return slice(first, last + 1), *(slice(int(e[0]), int(e[-1]) + 1) for e in edges)
