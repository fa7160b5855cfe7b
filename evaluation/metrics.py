"""Agreement of a predicted mask with a reference mask: arrays in, numbers out."""

import numpy as np
from numpy.typing import NDArray


def dice(prediction: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Return the Dice coefficient 2 |P and R| / (|P| + |R|) of two masks, from 0 to 1.

    prediction, reference: arrays of one shape and any bool or integer type; every value other
    than 0 is lesion. Two empty masks agree (1), one empty mask does not (0).
    Raises ValueError where the shapes differ.
    """
    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction has shape {prediction.shape}, reference has {reference.shape}: "
            "they must be equal"
        )
    predicted, expected = prediction != 0, reference != 0
    total = np.count_nonzero(predicted) + np.count_nonzero(expected)
    if total == 0:
        return 1.0
    return 2.0 * float(np.count_nonzero(predicted & expected)) / float(total)
