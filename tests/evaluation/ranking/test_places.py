from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from evaluation.ranking.places import average_ranks, places


@pytest.mark.parametrize(
    ("scores", "ranks", "shared"),
    [
        ([3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3, 1, 2]),
        ([1.0, 2.0, 2.0, 3.0], [1.0, 2.5, 2.5, 4.0], [1, 2, 2, 4]),
        ([5.0, 5.0, 5.0], [2.0, 2.0, 2.0], [1, 1, 1]),
        ([0.0, 0.0, -1.0, 0.0], [3.0, 3.0, 1.0, 3.0], [2, 2, 1, 2]),
        ([7.0], [1.0], [1]),
    ],
)
def test_ties_share_the_mean_of_their_ranks_and_the_best_of_their_places(
    scores: list[float], ranks: list[float], shared: list[int]
) -> None:
    assert average_ranks(np.array(scores)).tolist() == ranks
    assert places(np.array(scores)).tolist() == shared


def test_ranks_are_those_of_scipy() -> None:
    scores = np.random.default_rng(0).integers(0, 12, (7, 50, 20)).astype(np.float64)
    np.testing.assert_array_equal(average_ranks(scores), rankdata(scores, "average", axis=-1))
    np.testing.assert_array_equal(places(scores), rankdata(scores, "min", axis=-1))


def test_scores_that_only_rounding_tells_apart_share_a_place() -> None:
    sums = np.array([0.1 + 0.2, 0.3, 0.31])
    assert sums[0] != sums[1]
    assert places(sums).tolist() == [1, 1, 3]
    assert average_ranks(sums).tolist() == [2.0, 1.0, 3.0]  # of single values nothing is rounded
