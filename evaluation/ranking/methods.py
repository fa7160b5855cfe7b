"""The three ways from values a case to ranks, for any number of resamples of the cases at once.

Definitions: Wiesenfarth et al., Methods and open-source toolkit for analyzing and visualizing
challenge results, Scientific Reports 11:2369 (2021), whose challengeR ranks by one metric. Several
metrics are put together as FLARE does: a team's score is the weighted mean of its ranks in each.

Shapes: M metrics, T teams, C cases, B resamples. `losses` is (M, T, C), smaller is better.
`counts` is (B, C): how often a resample has drawn a case; all of them 1 is the ranking itself.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from evaluation.ranking.places import ROUNDING, Floats, average_ranks
from evaluation.ranking.rules import Method
from evaluation.ranking.signed_rank import holm, one_sided_p

Counts = NDArray[np.int64]


def case_ranks(losses: Floats) -> Floats:
    """Return the ranks (M, T, C) of the teams case by case, averages where tied."""
    return np.moveaxis(average_ranks(np.moveaxis(losses, 1, 2)), 2, 1)


def rank_then_aggregate(losses: Floats, counts: Counts, _: float) -> Floats:
    """Return each metric's mean (B, M, T) of the ranks case by case."""
    # Twice a rank is a whole number, whose sums are exact: equal means are tied in every resample.
    twice = np.rint(2 * case_ranks(losses))
    means: Floats = _weighted_sums(twice, counts) / (2 * losses.shape[2])
    return means


def aggregate_then_rank(losses: Floats, counts: Counts, _: float) -> Floats:
    """Return each metric's ranks (B, M, T) of the means over cases."""
    return average_ranks(_weighted_sums(losses, counts) / losses.shape[2], ROUNDING)


def test_then_rank(losses: Floats, counts: Counts, alpha: float) -> Floats:
    """Return each metric's ranks (B, M, T) of how many other teams one is better than.

    Better: by the one-sided signed rank test at the level `alpha`, Holm-adjusted over all ordered
    pairs of teams.
    """
    wins = [(holm(one_sided_p(one, counts)) <= alpha).sum(axis=2) for one in losses]
    return average_ranks(-np.stack(wins, axis=1).astype(np.float64))


MetricRanks = Callable[[Floats, Counts, float], Floats]
METRIC_RANKS: Mapping[Method, MetricRanks] = MappingProxyType(
    {
        "rank-then-aggregate": rank_then_aggregate,
        "aggregate-then-rank": aggregate_then_rank,
        "test-then-rank": test_then_rank,
    }
)


def scores(metric_ranks: Floats, weights: Floats) -> Floats:
    """Return the weighted mean (B, T) over the metrics of ranks (B, M, T); weights is (M,)."""
    mean: Floats = np.einsum("bmt,m->bt", metric_ranks, weights) / weights.sum()
    return mean


def _weighted_sums(values: Floats, counts: Counts) -> Floats:
    """Return the sum (B, M, T) of values (M, T, C) over cases, each as often as it was drawn."""
    return np.moveaxis(values @ counts.T.astype(np.float64), 2, 0)
