"""The three methods against tables that were ranked by hand, and against each other's resamples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata

from evaluation.ranking import methods
from evaluation.ranking.rules import METHODS, Method

Floats = NDArray[np.float64]
ALPHA = 0.05


def once(losses: Floats) -> NDArray[np.int64]:
    return np.ones((1, losses.shape[2]), np.int64)


def ranks(method: Method, losses: Floats) -> list[list[float]]:
    """Return one row of ranks a metric."""
    (table,) = methods.METRIC_RANKS[method](losses, once(losses), ALPHA)
    return [[float(rank) for rank in row] for row in table]


def test_case_ranks_by_hand() -> None:
    losses = np.array([[[1.0, 5.0], [1.0, 4.0], [2.0, 4.0]]])
    assert methods.case_ranks(losses).tolist() == [[[1.5, 3.0], [1.5, 1.5], [3.0, 1.5]]]


# One metric, a row a team, a column a case.
THREE = [[1.0, 1.0, 9.0], [2.0, 2.0, 1.0], [3.0, 2.0, 2.0]]
SAME_MEANS = [[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.5, 0.5, 0.5]]  # whose sums differ by rounding


def apart(cases: int, *steps: int) -> list[list[float]]:
    """Teams of which each is so many times the case's number behind the first."""
    return [[float(step * (case + 1)) for case in range(cases)] for step in steps]


@pytest.mark.parametrize(
    ("method", "losses", "expected"),
    [
        # Case by case: a 1, 1, 3; b 2, 2.5, 1; c 3, 2.5, 2.
        ("rank-then-aggregate", THREE, [5 / 3, 5.5 / 3, 7.5 / 3]),
        # Means: a 11/3, b 5/3, c 7/3: one bad case decides.
        ("aggregate-then-rank", THREE, [3.0, 1.0, 2.0]),
        ("aggregate-then-rank", SAME_MEANS, [1.5, 1.5, 3.0]),
        # a before b before c in each of 10 cases: p = 0.003 by rank sum 55, mean 27.5, variance
        # 96.25; times 6 tests still below 0.05. So a is better than two, b than one, c than none.
        ("test-then-rank", apart(10, 0, 1, 3), [1.0, 2.0, 3.0]),
        # The same in 5 cases: p = 0.029, times 6 above 0.05: nobody is better than anybody.
        ("test-then-rank", apart(5, 0, 1, 3), [2.0, 2.0, 2.0]),
        ("test-then-rank", apart(10, 0, 0, 1), [1.5, 1.5, 3.0]),
    ],
)
def test_ranks_by_hand(method: Method, losses: list[list[float]], expected: list[float]) -> None:
    assert ranks(method, np.array([losses])) == [pytest.approx(expected)]


def test_of_the_same_means_the_sums_differ() -> None:
    assert sum(SAME_MEANS[0]) != sum(SAME_MEANS[1])


def test_scores_weigh_the_metrics() -> None:
    metric_ranks = np.array([[[1.0, 2.0], [2.0, 1.0], [2.0, 1.0]]])
    for weights, expected in (([1.0, 0.5, 0.5], [1.5, 1.5]), ([2.0, 1.0, 2.0], [1.6, 1.4])):
        np.testing.assert_allclose(methods.scores(metric_ranks, np.array(weights)), [expected])


def test_rank_then_aggregate_is_what_scipy_ranks_one_case_after_another() -> None:
    losses = np.random.default_rng(0).integers(0, 6, (3, 8, 30)).astype(np.float64)
    expected = [
        np.mean([rankdata(of_case, "average") for of_case in metric.T], axis=0) for metric in losses
    ]
    np.testing.assert_allclose(ranks("rank-then-aggregate", losses), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_resample_is_ranked_as_the_cases_that_it_has(method: Method) -> None:
    draw = np.random.default_rng(1)
    losses = draw.integers(0, 8, (2, 6, 25)) + np.arange(6.0)[:, None]
    counts = draw.multinomial(25, np.full(25, 1 / 25), 40)
    together = methods.METRIC_RANKS[method](losses, counts, ALPHA)
    for of_resample, count in zip(together, counts, strict=True):
        drawn = np.repeat(losses, count, axis=2)
        (alone,) = methods.METRIC_RANKS[method](drawn, once(drawn), ALPHA)
        np.testing.assert_allclose(of_resample, alone, rtol=0, atol=1e-12)
