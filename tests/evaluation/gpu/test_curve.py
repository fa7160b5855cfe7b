from dataclasses import replace

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.gpu.curve import (
    NOISE_MIB,
    Baseline,
    Curve,
    area_above,
    baseline,
    flare_numbers,
    measure,
    thinned,
)
from tests.evaluation.gpu.curves import RESERVED_MIB, curve

ZERO = Baseline(0.0, 0.0)
COLUMNS = 1000


def test_stamp_is_the_middle_of_the_call() -> None:
    np.testing.assert_allclose(curve([1, 2], [0, 0], query_s=0.5).t_s, [1, 2])


def test_arrays_of_different_lengths_are_refused() -> None:
    arrays = [np.zeros(2), *[np.zeros(3)] * 5]
    with pytest.raises(ValueError, match="one length"):
        Curve(*arrays)


def test_api_is_v1_where_nothing_is_reserved() -> None:
    v2 = curve([0, 1], [5, 5])
    v1 = replace(v2, reserved_mib=np.full(2, np.nan))
    assert (v2.api, v1.api) == ("v2", "v1")


def test_between_includes_both_ends() -> None:
    part = curve([0, 1, 2, 3, 4], [10, 11, 12, 13, 14]).between(1, 3)
    assert part.used_mib.tolist() == [11, 12, 13]
    assert len(curve([0, 1], [0, 0]).between(5, 6)) == 0


def test_baseline_is_the_median_of_the_last_second() -> None:
    #                the first lies outside
    before = baseline(curve([0.0, 1.1, 1.4, 1.7, 2.0, 2.1], [999, 300, 310, 301, 302, 5000]), 2.0)
    assert before == Baseline(mib=301.5, spread_mib=10.0)


@pytest.mark.parametrize(("spread_mib", "stable"), [(0, True), (16, True), (16.1, False)])
def test_baseline_is_stable_up_to_16_mib(spread_mib: float, stable: bool) -> None:
    assert Baseline(300.0, spread_mib).is_stable is stable


def test_baseline_needs_a_sample() -> None:
    with pytest.raises(EvaluationError, match=r"no GPU sample in the 1 s before"):
        baseline(curve([0, 1], [0, 0]), 2.5)


def test_area_of_a_triangle_over_uneven_stamps() -> None:
    # Rises from 0 at t=0 to 1000 at t=4, back to 0 at t=10: area 5000.
    t_s = np.array([-1, 0, 0.3, 2.9, 4, 4.1, 9.5, 10, 11])
    used = np.interp(t_s, [0, 4, 10], [0, 1000, 0])
    usage = measure(curve(t_s, used + 300, query_s=0.01), 0, 10, Baseline(300, 0))
    assert usage.area_mib_s == pytest.approx(5000)
    assert (usage.peak_mib, usage.raw_peak_mib) == (1000, 1300)
    assert usage.samples == 7


def test_ends_are_interpolated() -> None:
    # used = 100 t from 1.25 to 2.5: 50 (2.5^2 - 1.25^2)
    usage = measure(curve([0, 1, 2, 3], [0, 100, 200, 300]), 1.25, 2.5, ZERO)
    assert usage.area_mib_s == pytest.approx(50 * (2.5**2 - 1.25**2))
    assert usage.raw_peak_mib == 200  # the only sample inside: a lower bound
    assert usage.samples == 1


def test_memory_below_the_baseline_counts_as_negative() -> None:
    usage = measure(curve([0, 1, 2], [100, 80, 100]), 0, 2, Baseline(100, 0))
    assert usage.area_mib_s == pytest.approx(-20)
    assert usage.peak_mib == 0


def test_run_between_two_samples_is_measured_by_its_ends() -> None:
    usage = measure(curve([0, 1], [0, 100]), 0.2, 0.4, ZERO)
    assert usage.area_mib_s == pytest.approx(0.2 * 30)
    assert usage.raw_peak_mib == pytest.approx(40)
    assert usage.samples == 0
    assert usage.interval_max_s == 1


@pytest.mark.parametrize(("start_s", "finish_s"), [(-0.1, 1), (0, 2.1)])
def test_run_that_is_not_covered_is_refused(start_s: float, finish_s: float) -> None:
    with pytest.raises(EvaluationError, match=r"cover 0\.000 to 2\.000 s, not the run from"):
        measure(curve([0, 1, 2], [0, 0, 0]), start_s, finish_s, ZERO)


def test_empty_curve_and_empty_run_are_refused() -> None:
    with pytest.raises(EvaluationError, match="cover nothing"):
        measure(curve([], []), 0, 1, ZERO)
    with pytest.raises(EvaluationError, match="cannot be measured"):
        measure(curve([0, 1], [0, 0]), 0.5, 0.5, ZERO)


def test_first_use_is_the_first_sample_above_the_noise() -> None:
    samples = curve([0, 1, 2, 3, 4], [300, 300, 300 + NOISE_MIB, 300 + NOISE_MIB + 1, 300])
    assert measure(samples, 0.5, 4, Baseline(300, 0)).first_use_s == pytest.approx(2.5)
    assert measure(samples, 0.5, 2.5, Baseline(300, 0)).first_use_s is None


def test_intervals_are_those_that_touch_the_run() -> None:
    t_s = np.array([0, 5, 5.02, 5.04, 5.07, 5.09, 9])
    usage = measure(curve(t_s, np.zeros(7)), 5.01, 5.08, ZERO)
    assert usage.interval_max_s == pytest.approx(0.03)
    assert usage.interval_p50_s == pytest.approx(0.02)
    gaps_s = [0.02, 0.02, 0.03, 0.02]
    assert usage.interval_p99_s == pytest.approx(np.percentile(gaps_s, 99))


@pytest.mark.parametrize(
    ("used_mib", "finish_s", "tail_s", "area_mib_s"),
    [
        # At 1000 until t=3, down to nearly the baseline at t=4.
        ([1300, 1300, 1300, 1300, 310, 300], 2, 2, 1000 + (1000 + 10) / 2),
        ([300, 800, 800, 800], 1.5, None, 1.5 * 500),
        ([300, 800, 300, 300], 2.5, 0, 0),
    ],
    ids=["to the first sample near the baseline", "memory never comes back", "back already"],
)
def test_tail(
    used_mib: list[float], finish_s: float, tail_s: float | None, area_mib_s: float
) -> None:
    samples = curve(range(len(used_mib)), used_mib)
    usage = measure(samples, 0, finish_s, Baseline(300, 0))
    assert usage.tail_s == (tail_s if tail_s is None else pytest.approx(tail_s))
    assert usage.tail_area_mib_s == pytest.approx(area_mib_s)


@pytest.mark.parametrize(
    ("used_mib", "expected"),
    [
        ([0, 8192], 4096 * 1 / 2),  # crosses after 1 s of 2
        ([8192, 0], 4096 * 1 / 2),
        ([4096, 8192], 4096 * 2 / 2),  # starts on the level
        ([5096, 6096], 1500 * 2),
        ([0, 4096], 0),
        ([4096, 4096], 0),
        ([0, 1000], 0),
        ([1024, 5120], 1024 * 0.5 / 2),  # the last quarter
    ],
)
def test_area_above_a_level_of_one_segment(used_mib: list[float], expected: float) -> None:
    samples = curve([10, 12], np.array(used_mib) + 300)
    assert area_above(samples, 10, 12, 300, 4096) == pytest.approx(expected)


def test_area_above_equals_a_fine_sum_over_a_random_curve() -> None:
    rng = np.random.default_rng(0)
    t_s = np.cumsum(rng.uniform(0.01, 0.1, 200))
    used = rng.uniform(0, 9000, 200)
    start_s, finish_s = t_s[3] + 0.004, t_s[-2] - 0.003
    fine_s = np.linspace(start_s, finish_s, 2_000_001)
    excess = np.maximum(np.interp(fine_s, t_s, used) - 300 - 4096, 0)
    expected = np.trapezoid(excess, fine_s)
    found = area_above(curve(t_s, used), start_s, finish_s, 300, 4096)
    assert found == pytest.approx(expected, rel=1e-6)


def test_area_above_zero_is_the_whole_area() -> None:
    samples = curve([0, 1, 2, 3], [300, 900, 500, 300])
    area = measure(samples, 0.5, 2.5, Baseline(300, 0)).area_mib_s
    assert area_above(samples, 0.5, 2.5, 300, 0) == pytest.approx(area)


def test_flare_takes_a_sample_every_tenth_of_a_second_of_the_whole_gpu() -> None:
    # Samples at 0.01, 0.03, ...; their polls at 0, 0.1, 0.2, 0.3 meet numbers 0, 5, 10 and 15, each
    # with the 500 MiB that are reserved: 500 + 505 + 510 + 515 = 2030; times 0.1 = 203.
    samples = curve(np.arange(20) * 0.02 + 0.01, np.arange(20))
    assert flare_numbers(samples, 0.0, 0.35) == (515, 203)


def test_flare_counts_a_slow_query_as_a_tenth_of_a_second() -> None:
    # Calls of 20 ms, back to back: polls at 0, 0.12, ..., 1.08: ten in 1.19 s. The true area is
    # 1000 * 1.19 = 1190, theirs is 1000 * 10 * 0.1.
    samples = curve(np.arange(70) * 0.02 + 0.01, np.full(70, 500.0), query_s=0.02)
    assert flare_numbers(samples, 0.0, 1.19) == (1000, 1000)


@pytest.mark.parametrize("interval_s", [0.005, 0.02, 0.1])
def test_flare_numbers_do_not_depend_on_our_interval(interval_s: float) -> None:
    # Queries of 1 ms: 100 polls, at 0, 0.101, ..., 9.999.
    count = int(10.2 / interval_s)
    samples = curve(np.arange(count) * interval_s, np.full(count, 500.0), query_s=0.001)
    assert flare_numbers(samples, 0.0, 10.05) == (1000, 10_000)


@pytest.mark.parametrize(("memory_mib", "expected"), [(1000.5, 1000), (1001.5, 1002)])
def test_flare_rounds_halves_to_even(memory_mib: float, expected: float) -> None:
    one = curve([0.0], [memory_mib - RESERVED_MIB])
    assert flare_numbers(one, 0, 0.05)[0] == expected
    assert flare_numbers(curve([0.0], [25 - RESERVED_MIB]), 0, 0.05) == (25, 2)  # 2.5


def test_flare_needs_a_sample() -> None:
    with pytest.raises(EvaluationError, match="no GPU sample"):
        flare_numbers(curve([0, 1], [0, 0]), 2, 3)


def test_thinning_loses_no_peak() -> None:
    rng = np.random.default_rng(0)
    t_s = np.cumsum(rng.uniform(0.01, 0.03, 200_000))
    values = rng.normal(1000, 10, t_s.size)
    values[123_456], values[77_777] = 9000.0, -50.0
    kept_s, kept = thinned(t_s, values, COLUMNS)
    assert kept_s.size <= 4 * (COLUMNS + 1)
    assert (np.diff(kept_s) > 0).all()
    assert np.isin(kept_s, t_s).all()
    np.testing.assert_array_equal(kept, values[np.searchsorted(t_s, kept_s)])
    assert (kept_s[0], kept_s[-1]) == (t_s[0], t_s[-1])
    edges = np.linspace(t_s[0], t_s[-1], COLUMNS + 1)[1:-1]
    for of_all, of_kept in zip(
        np.split(values, np.searchsorted(t_s, edges)),
        np.split(kept, np.searchsorted(kept_s, edges)),
        strict=True,
    ):
        assert (of_all.min(), of_all.max()) == (of_kept.min(), of_kept.max())
        assert (of_all[0], of_all[-1]) == (of_kept[0], of_kept[-1])


def test_short_curves_are_not_thinned() -> None:
    t_s = np.arange(4.0 * COLUMNS)
    assert thinned(t_s, t_s, COLUMNS) == (t_s, t_s)
