"""Rotations as NIfTI's qform states them."""

import numpy as np

from volumes.grid import Matrix


def qform_of(matrix: Matrix) -> tuple[float, Matrix]:
    """Return a qform's handedness (1 or -1) and b, c, d for axes that are made `upright`."""
    axes = upright(matrix)
    handedness = float(np.linalg.det(axes).round())
    axes[:, 2] *= handedness
    return handedness, quaternion(axes)[1:]


def upright(matrix: Matrix) -> Matrix:
    """Return the columns as unit vectors at right angles: each less its part along those before."""
    orthogonal, triangle = np.linalg.qr(matrix)
    return orthogonal * np.sign(np.diag(triangle))


def quaternion(rotation: Matrix) -> Matrix:
    """Return a, b, c, d of a rotation's unit quaternion, a not negative (Bar-Itzhack 2000)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    symmetric = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, yx + xy, zx + xz],
            [xz - zx, yx + xy, yy - xx - zz, zy + yz],
            [yx - xy, zx + xz, zy + yz, zz - xx - yy],
        ]
    )
    largest = np.linalg.eigh(symmetric)[1][:, -1]
    return -largest if largest[0] < 0 else largest
