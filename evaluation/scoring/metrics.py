"""Agreement of a predicted mask with a reference mask: arrays in, numbers out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def dice(prediction: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Return the Dice coefficient 2 |P and R| / (|P| + |R|) of two masks, from 0 to 1.

    prediction, reference: arrays of one shape and any bool or integer type; every value other
    than 0 is lesion. Two empty masks agree (1), one empty mask does not (0).
    Raises ValueError where the shapes differ.
    """
    check_shapes(prediction, reference)
    predicted, expected = prediction != 0, reference != 0
    total = np.count_nonzero(predicted) + np.count_nonzero(expected)
    if total == 0:
        return 1.0
    return 2.0 * float(np.count_nonzero(predicted & expected)) / float(total)


def check_shapes(
    prediction: NDArray[np.generic], reference: NDArray[np.generic], ndim: int | None = None
) -> None:
    """Raise ValueError unless both arrays have one shape, of `ndim` dimensions where it is given.

    NumPy would broadcast (1, 3) against (2, 3) and count voxels that nobody predicted.
    """
    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction has shape {prediction.shape}, reference has {reference.shape}: "
            "they must be equal"
        )
    if ndim is not None and prediction.ndim != ndim:
        raise ValueError(
            f"prediction and reference have shape {prediction.shape}: it must have {ndim} axes"
        )


def check_spacing(spacing_zyx: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the spacing as a float64 array of shape (3,), in mm.

    Raises ValueError unless it is three positive finite numbers.
    """
    spacing = np.asarray(spacing_zyx, np.float64)
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or not (spacing > 0).all():
        raise ValueError(f"spacing_zyx is {spacing_zyx!r}: it must be three positive numbers (mm)")
    return spacing
