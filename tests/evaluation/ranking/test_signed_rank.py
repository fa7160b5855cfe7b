from __future__ import annotations

from math import sqrt
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from evaluation.ranking.signed_rank import holm, one_sided_p

Floats = NDArray[np.float64]


def once(losses: Floats) -> NDArray[np.int64]:
    return np.ones((1, losses.shape[1]), np.int64)


def p_of_scipy(gains: Floats) -> float:
    test = wilcoxon(gains, alternative="greater", method="asymptotic", correction=True)
    return float(test.pvalue)


def test_ties_and_no_difference_by_hand() -> None:
    # Gains 0, 1, -1, 2, 3: without the 0 their ranks are 1.5, 1.5, 3, 4; those above 0 sum to 8.5.
    # n = 4: mean 5, variance 4 * 5 * 9 / 24 - (2^3 - 2) / 48 = 7.375.
    losses = np.array([[5.0, 5.0, 5.0, 5.0, 5.0], [5.0, 6.0, 4.0, 7.0, 8.0]])
    ((_, better), (worse, _)) = one_sided_p(losses, once(losses))[0]
    assert better == pytest.approx(1 - NormalDist().cdf((8.5 - 5 - 0.5) / sqrt(7.375)), abs=1e-12)
    assert worse == pytest.approx(1 - NormalDist().cdf((1.5 - 5 - 0.5) / sqrt(7.375)), abs=1e-12)


def test_without_any_difference_nobody_is_better() -> None:
    losses = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.5]])
    p = one_sided_p(losses, once(losses))[0]
    assert p[0, 1] == p[1, 0] == 1
    assert np.diag(p).tolist() == [1, 1, 1]


@pytest.mark.parametrize("levels", [10_000, 30, 4])
def test_p_is_that_of_scipy_with_few_and_with_many_ties(levels: int) -> None:
    losses = np.random.default_rng(levels).integers(0, levels, (6, 60)).astype(np.float64)
    p = one_sided_p(losses, once(losses))[0]
    expected = np.ones_like(p)
    for row, column in np.argwhere(~np.eye(len(losses), dtype=np.bool_)):
        expected[row, column] = p_of_scipy(losses[column] - losses[row])
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [10_000, 4])
def test_a_resample_is_tested_as_the_cases_that_it_has(levels: int) -> None:
    draw = np.random.default_rng(levels)
    losses = draw.integers(0, levels, (4, 40)).astype(np.float64)
    counts = draw.multinomial(40, np.full(40, 1 / 40), 25)
    p = one_sided_p(losses, counts)
    for of_resample, count in zip(p, counts, strict=True):
        drawn = np.repeat(losses, count, axis=1)
        np.testing.assert_allclose(of_resample, one_sided_p(drawn, once(drawn))[0], atol=1e-12)
        assert of_resample[0, 1] == pytest.approx(p_of_scipy(drawn[1] - drawn[0]), abs=1e-12)


@pytest.mark.parametrize("n", [3000, 20_000, 50_000])
def test_so_many_cases_that_small_integers_would_overflow(n: int) -> None:
    losses = np.zeros((2, n))
    losses[1] = 1.0
    p = one_sided_p(losses, once(losses))[0]
    # All tie: mean n (n + 1) / 4, variance n (n + 1) (2n + 1) / 24 - (n^3 - n) / 48.
    deviation = sqrt(n * (n + 1) * (2 * n + 1) / 24 - (n**3 - n) / 48)
    assert p[1, 0] == pytest.approx(
        NormalDist().cdf((n * (n + 1) / 4 + 0.5) / deviation), rel=1e-12
    )
    assert p[0, 1] < 1e-300


def test_differences_that_only_rounding_tells_apart_are_tied() -> None:
    losses = np.array([[0.1, 0.2, 1.0], [0.2, 0.3, 0.0]])
    exact = np.array([[1.0, 2.0, 10.0], [2.0, 3.0, 0.0]])
    assert losses[1, 0] - losses[0, 0] != losses[1, 1] - losses[0, 1]
    np.testing.assert_array_equal(
        one_sided_p(losses, once(losses)), one_sided_p(exact, once(exact))
    )


def test_holm_by_hand() -> None:
    # In ascending order 0.01 * 6, 0.02 * 5, 0.03 * 4, 0.04 * 3, 0.05 * 2, 0.9 * 1, none smaller
    # than the one before it.
    p = np.array([[[1, 0.04, 0.01], [0.05, 1, 0.03], [0.02, 0.9, 1]]])
    adjusted = [[[1.0, 0.12, 0.06], [0.12, 1.0, 0.12], [0.10, 0.9, 1.0]]]
    np.testing.assert_allclose(holm(p), adjusted, rtol=0, atol=1e-15)


def test_holm_keeps_to_one_and_to_each_resample() -> None:
    p = np.array([[[1, 0.6], [0.5, 1]], [[1, 0.01], [0.99, 1]]])
    adjusted = [[[1.0, 1.0], [1.0, 1.0]], [[1.0, 0.02], [0.99, 1.0]]]
    np.testing.assert_allclose(holm(p), adjusted, rtol=0, atol=1e-15)
