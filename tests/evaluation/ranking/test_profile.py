from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.ranking.profile import BUILT_IN, Metric, built_in, load_profile
from evaluation.tolerances import TIME_LIMIT_S, VRAM_LIMIT_MIB

GOOD = (BUILT_IN / "flare24.toml").read_text()


def test_flare24_has_the_challenges_metrics_and_tolerances() -> None:
    profile = load_profile("flare24")
    assert profile.method == "rank-then-aggregate"
    dsc, nsd, time, area = profile.metrics
    assert (dsc.column, dsc.better, dsc.failed) == ("dsc", "larger", 0)
    assert (nsd.column, nsd.better, nsd.failed) == ("nsd", "larger", 0)
    assert (time.column, time.better, time.tolerance) == ("flare_time_s", "smaller", TIME_LIMIT_S)
    assert time.failed == 3600
    assert (area.column, area.better) == (f"area_above_{VRAM_LIMIT_MIB:.0f}_mib_s", "smaller")
    assert area.failed == 3600 * (10240 - VRAM_LIMIT_MIB)
    assert {metric.weight for metric in profile.metrics} == {1.0}


def test_without_a_gpu_only_its_memory_is_left_out() -> None:
    assert load_profile("flare24-without-gpu").metrics == load_profile("flare24").metrics[:3]


def test_built_in_profiles_are_named_after_their_files() -> None:
    assert {name: load_profile(name).name for name in built_in()} == {n: n for n in built_in()}


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nmethod = "test-then-rank"\nalpha = 0.01\n'
        '[[metrics]]\ncolumn = "cpu_s"\nname = "CPU"\nbetter = "smaller"\nfailed = 9\nweight = 2\n'
    )
    mine = load_profile(str(path))
    assert (mine.name, mine.method, mine.alpha) == ("mine", "test-then-rank", 0.01)
    assert mine.metrics == (Metric("cpu_s", "CPU", "smaller", failed=9, weight=2),)


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ('method = "rank-then-aggregate"', 'method = "median"', "method is 'median', not one of"),
        ('method = "rank-then-aggregate"', "", "method"),
        ('name = "flare24"', "alpha = 1.5\nname = ''", "alpha is 1.5"),
        ('name = "flare24"', 'name = "x"\nnamed = 3', "named"),
        ('better = "larger"', 'better = "big"', "better is 'big'"),
        ("tolerance = 45.0", "tolerance = -1", "tolerance must be above 0"),
        ("tolerance = 45.0", "weight = 0", "weight is 0, must be above 0"),
        ("tolerance = 45.0", 'weight = "half"', "must be real number, not str"),
        ("tolerance = 45.0", "weight = nan", "must be finite"),
        ("failed = 3600.0", "", "failed"),
        ("failed = 3600.0", "failed = 0.0\ntolerence = 3", "tolerence"),
        ('column = "nsd"', 'column = "dsc"', "each with a column of its own"),
        ('column = "dsc"', "column = ", "Invalid value"),
    ],
)
def test_a_bad_profile_is_named_with_what_is_wrong(
    tmp_path: Path, old: str, new: str, finding: str
) -> None:
    assert old in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(EvaluationError, match=r"mine\.toml: not a ranking profile") as caught:
        load_profile(str(path))
    assert finding in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tolerance_needs_a_metric_that_is_better_small() -> None:
    with pytest.raises(ValueError, match="better small"):
        Metric("dsc", "DSC", "larger", failed=0.0, tolerance=0.1)


def test_no_profile_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError, match="no profile of that name; there are flare24, flare24"
    ):
        load_profile(str(tmp_path / "flare99"))


def test_what_is_ranked_of_a_metric() -> None:
    values, failed = np.array([3.0, 50.0, 70.0, np.nan]), np.array([False, False, False, True])
    time = Metric("t", "Time", "smaller", failed=60.0, tolerance=45.0)
    assert time.ranked(values, failed).tolist() == [0.0, 5.0, 15.0, 15.0]
    dsc = Metric("d", "DSC", "larger", failed=0.0)
    assert dsc.ranked(np.array([0.5, 0.0, 1.0, np.nan]), failed).tolist() == [0.5, 0.0, 1.0, 0.0]
