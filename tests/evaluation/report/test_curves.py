import numpy as np
import pytest

from evaluation.report.curves import LEAST, MOST, intervals, packed
from tests.evaluation.gpu.curves import curve


def unpacked(content: dict[str, list[int]]) -> tuple[list[int], list[int]]:
    return np.cumsum(content["step_ms"]).tolist(), content["mib"]


def test_a_short_curve_keeps_every_corner() -> None:
    content = packed(curve([-1, 0, 0.5, 1.0004, 2], [10, 10, 300.4, 20, 10]), 100)
    assert content is not None
    assert unpacked(content) == ([-1000, 0, 500, 1000, 2000], [10, 10, 300, 20, 10])


def test_a_level_is_its_two_ends() -> None:
    content = packed(curve([0, 1, 2, 3, 4, 5], [7, 7, 7, 7, 9, 9]), 100)
    assert content is not None
    assert unpacked(content) == ([0, 3000, 4000, 5000], [7, 7, 9, 9])


def test_no_peak_is_lost_however_short_and_however_few_the_intervals() -> None:
    rng = np.random.default_rng(0)
    memory = rng.integers(1000, 2000, 100_000).astype(float)
    memory[54_321], memory[77_777] = 9000, 3
    t_s = np.arange(100_000) * 0.02
    content = packed(curve(t_s, memory), 25)
    assert content is not None
    t_ms, mib = unpacked(content)
    assert len(mib) <= 4 * 25 + 4
    assert t_ms[mib.index(9000)] == 54_321 * 20
    assert t_ms[mib.index(3)] == 77_777 * 20
    assert (t_ms[0], t_ms[-1]) == (0, 99_999 * 20)


def test_there_may_be_no_sample() -> None:
    assert packed(curve([], []), 100) is None


@pytest.mark.parametrize(
    ("curves", "each"), [(0, MOST), (1, MOST), (10_000, 100), (50_000, LEAST), (10**9, LEAST)]
)
def test_many_curves_share_the_page(curves: int, each: int) -> None:
    assert intervals(curves) == each
