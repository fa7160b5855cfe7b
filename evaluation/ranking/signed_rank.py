"""Which team is better than which: Wilcoxon's signed rank test of all pairs, in all resamples.

As R's `wilcox.test(paired = TRUE, exact = FALSE, alternative = "greater")`, which challengeR calls,
and SciPy's `wilcoxon(method="asymptotic", correction=True)`: differences of 0 are left out, tied
ones share the mean of their ranks, the normal approximation has the variance that ties leave, and a
continuity correction. What is here besides is speed: hundreds of pairs in a thousand resamples.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from evaluation.ranking.places import Floats

Integers = NDArray[np.signedinteger]

BLOCK = 16  # rows
DECIMALS = 9  # of a difference: 0.3 - 0.2 and 0.2 - 0.1 are tied


def one_sided_p(losses: Floats, counts: NDArray[np.int64]) -> Floats:
    """Return p (B, T, T) that the team of the row is better than that of the column; 1 on itself.

    losses: (T, C), smaller is better. counts: (B, C), how often each case is in a resample. Where
    the two differ in no case, p is 1.
    """
    teams, cases = losses.shape
    first, second = np.triu_indices(teams, 1)
    gains = np.round(losses[second] - losses[first], DECIMALS)  # above 0: the first is better
    # Most of the time goes into moving memory: twice a rank fits into 16 bits up to 16383 cases,
    # and the sum of all into 32.
    exact = np.int16 if 2 * cases < 2**15 else np.int64
    drawn: Integers = np.ascontiguousarray(counts.T, exact)
    n, rank_sums, cubes = np.empty((3, len(gains), len(counts)))
    untied = np.zeros_like(gains)
    for pair, gain in enumerate(gains):
        n[pair], rank_sums[pair], cubes[pair], alone = _signed_ranks(gain, drawn)
        untied[pair, alone] = 1

    ties = cubes + untied @ drawn.astype(np.float64) ** 3 - n  # t^3 - t of every tie
    above_mean = rank_sums - n * (n + 1) / 4
    deviation = np.sqrt(n * (n + 1) * (2 * n + 1) / 24 - ties / 48)
    p = np.ones((len(counts), teams, teams))
    for rows, columns, excess in ((first, second, above_mean), (second, first, -above_mean)):
        z = np.divide(excess - 0.5, deviation, out=np.full_like(n, -np.inf), where=n > 0)
        p[:, rows, columns] = ndtr(-z).T
    return p


def holm(p: Floats) -> Floats:
    """Return p (B, T, T) adjusted by Holm's method over the T (T - 1) tests off the diagonal.

    In ascending order the k-th of m p-values is multiplied by m - k + 1, and made no smaller than
    the one before and no larger than 1.
    """
    tests = ~np.eye(p.shape[1], dtype=np.bool_)
    raw = p[:, tests]
    order = np.argsort(raw, axis=1)
    remaining = np.arange(raw.shape[1], 0, -1)
    ascending = np.maximum.accumulate(np.take_along_axis(raw, order, 1) * remaining, axis=1)
    adjusted = np.empty_like(raw)
    np.put_along_axis(adjusted, order, np.minimum(ascending, 1.0), 1)
    whole = np.ones_like(p)
    whole[:, tests] = adjusted
    return whole


def _signed_ranks(
    gains: Floats, drawn: Integers
) -> tuple[Integers, Floats, Floats, NDArray[np.intp]]:
    """Return what the test of one pair needs, in every resample.

    gains: (C,). drawn: (C, B), how often each is in a resample. Returns how many are not 0 (B,),
    the rank sum (B,) of those above 0, t^3 (B,) summed over the ties of several cases, which
    together are t times in a resample, and the cases that are tied with none but themselves.
    """
    (differing,) = np.nonzero(gains)
    order = differing[np.argsort(np.abs(gains[differing]))]
    size, positive = np.abs(gains[order]), gains[order] > 0
    # What ties has the ranks from below[start] + 1 to below[end], half of these two's sum each.
    below = _running_sums(drawn, order)
    start, end = np.searchsorted(size, size, "left"), np.searchsorted(size, size, "right")
    twice_rank = below[start[positive]]
    twice_rank += below[end[positive]]
    twice_rank += 1
    total = np.promote_types(drawn.dtype, np.int32)
    rank_sum = np.einsum("cb,cb->b", twice_rank, drawn[order[positive]], dtype=total) / 2

    several = np.unique(start[end - start > 1])
    t = (below[end[several]] - below[several]).astype(np.float64)
    return below[len(order)], rank_sum, (t**3).sum(axis=0), order[end - start == 1]


def _running_sums(rows: Integers, order: NDArray[np.intp]) -> Integers:
    """Return the sums of the first 0, 1, ..., N of rows (C, B), taken in an order (N,).

    Shape (at least N + 1, B). Within blocks of rows, then over the blocks, whole rows at a time:
    np.cumsum along the first axis goes column by column, several times as slow.
    """
    blocks = len(order) // BLOCK + 1
    sums = np.empty((blocks, BLOCK, rows.shape[1]), rows.dtype)
    flat = sums.reshape(blocks * BLOCK, -1)
    flat[0] = flat[len(order) + 1 :] = 0
    np.take(rows, order, axis=0, out=flat[1 : len(order) + 1], mode="clip")  # others copy twice
    for k in range(1, BLOCK):
        sums[:, k] += sums[:, k - 1]
    for block in range(1, blocks):
        sums[block] += sums[block - 1, -1]
    return flat
