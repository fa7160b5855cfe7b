from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from evaluation.ranking.stability import interval, kendall_tau, place_counts, resample


def test_resamples_have_as_many_cases_and_come_back_with_their_seed() -> None:
    counts = resample(40, 500, seed=3)
    assert counts.shape == (500, 40)
    assert (counts.sum(axis=1) == 40).all()
    np.testing.assert_array_equal(counts, resample(40, 500, seed=3))
    assert (counts != resample(40, 500, seed=4)).any()


def test_a_resample_draws_each_case_alike_and_with_replacement() -> None:
    counts = resample(40, 5000, seed=0)
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)  # 4 standard errors
    # (1 - 1/40)^40 of the cases are not in a resample.
    assert (counts == 0).mean() == pytest.approx((1 - 1 / 40) ** 40, abs=0.005)


def test_place_counts_by_hand() -> None:
    places = np.array([[1, 2, 3], [2, 1, 3], [1, 1, 3], [1, 2, 2]])
    assert place_counts(places).tolist() == [[3, 1, 0], [2, 2, 0], [0, 1, 3]]


def test_tau_by_hand() -> None:
    places = np.array([1, 2, 3, 4])
    # Of six pairs one is exchanged: (5 - 1) / 6. With a tie: 5 / sqrt(6 * 5).
    others = np.array([[1, 2, 3, 4], [2, 1, 3, 4], [4, 3, 2, 1], [1, 1, 3, 4], [1, 1, 1, 1]])
    tau = kendall_tau(places, others)
    np.testing.assert_allclose(tau[:4], [1, 4 / 6, -1, 5 / 30**0.5], rtol=0, atol=1e-15)
    assert np.isnan(tau[4])
    assert np.isnan(kendall_tau(np.array([1]), np.array([[1]])))


def test_tau_is_that_of_scipy() -> None:
    draw = np.random.default_rng(0)
    places, others = draw.integers(1, 9, 12), draw.integers(1, 9, (200, 12))
    expected = [kendalltau(places, other).statistic for other in others]
    np.testing.assert_allclose(kendall_tau(places, others), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("counts", "bounds"),
    [([1000, 0, 0], (1, 1)), ([24, 952, 24], (2, 2)), ([25, 950, 25], (1, 2)), ([1, 0, 1], (1, 3))],
)
def test_the_interval_holds_95_percent(counts: list[int], bounds: tuple[int, int]) -> None:
    assert interval(np.array(counts)) == bounds
