"""From scores to ranks and places, ties kept."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Sums of other summands that are equal but for this, of the largest beside them, are equal: far
# above float64's rounding, far below what is measured.
ROUNDING = 1e-9


def average_ranks(scores: Floats, rounding: float = 0.0) -> Floats:
    """Rank the last axis, the smallest 1; ties get the mean of the ranks that they take up.

    rounding: of the largest score, what two may differ by and still be tied.
    """
    better, worse = _beaten(scores, rounding)
    ranks: Floats = (scores.shape[-1] + 1 + worse - better) / 2
    return ranks


def places(scores: Floats) -> NDArray[np.int64]:
    """Return places along the last axis, the smallest 1; ties share the best of theirs (1 2 2 4).

    Scores that only rounding tells apart are tied.
    """
    _, worse = _beaten(scores, ROUNDING)
    return 1 + worse


def _beaten(scores: Floats, rounding: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many of the last axis each is better than, and how many it is worse than."""
    margin = rounding * np.abs(scores).max(axis=-1)[..., None, None]
    is_worse = scores[..., :, None] > scores[..., None, :] + margin
    return is_worse.sum(axis=-2), is_worse.sum(axis=-1)
