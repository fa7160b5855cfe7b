"""How much a ranking depends on which cases it happens to be of: bootstrap, and Kendall's tau."""

import numpy as np
from numpy.typing import NDArray

from evaluation.ranking.places import Floats

Integers = NDArray[np.int64]

QUANTILES = (0.025, 0.975)  # between them are 95 % of the resamples


def resample(cases: int, resamples: int, seed: int) -> Integers:
    """Draw C of C cases with replacement, B times; return how often each was drawn, (B, C)."""
    drawn = np.random.default_rng(seed).integers(cases, size=(resamples, cases))
    counts = np.zeros((resamples, cases), np.int64)
    np.add.at(counts, (np.arange(resamples)[:, None], drawn), 1)
    return counts


def place_counts(places: Integers) -> Integers:
    """Return (T, T): row, a team; column i, in how many of the places (B, T) it has place i + 1."""
    every = np.arange(1, places.shape[1] + 1)
    return np.asarray((places[:, :, None] == every).sum(axis=0))


def kendall_tau(places: Integers, others: Integers) -> Floats:
    """Return Kendall's tau-b (B,) between places (T,) and each of `others` (B, T).

    NaN where one of them has all teams in one place, or there is a single team.
    """
    one = np.sign(places[:, None] - places)
    many = np.sign(others[:, :, None] - others[:, None, :])
    agreeing = np.einsum("bij,ij->b", many, one)
    pairs = np.count_nonzero(one) * np.count_nonzero(many, axis=(1, 2))
    tau = np.full(len(others), np.nan)
    np.divide(agreeing, np.sqrt(pairs), out=tau, where=pairs > 0)
    return tau


def interval(counts: Integers) -> tuple[int, int]:
    """Return the places between which a team is in 95 % of the resamples.

    counts: (T,), a row of `place_counts`. The bounds are quantiles: the best place that at least
    their part of the resamples do not exceed.
    """
    low, high = np.searchsorted(np.cumsum(counts) / counts.sum(), QUANTILES)
    return int(low) + 1, int(high) + 1
