import numpy as np

from evaluation.report.metrics import distribution
from evaluation.tables.results import values


def test_a_box_as_tukey_draws_it() -> None:
    # Quartiles 2 and 4, so whiskers reach from -1 to 7 at most.
    box = distribution(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert box == {
        "n": 5,
        "mean": 22.0,
        "sd": 43.61766,
        "q1": 2.0,
        "median": 3.0,
        "q3": 4.0,
        "low": 1.0,
        "high": 4.0,
        "far": [100.0],
        "values": [1.0, 2.0, 3.0, 4.0, 100.0],
    }


def test_one_value_has_no_deviation() -> None:
    box = distribution(np.array([0.5]))
    assert box["sd"] is None
    assert box["q1"] == box["median"] == box["high"] == 0.5
    assert box["far"] == []


def test_what_was_not_measured_is_no_value() -> None:
    dsc: list[dict[str, object]] = [{"dsc": 0.5}, {"dsc": None}, {}, {"dsc": 0.0}]
    assert values([{"status": "ok"} | row for row in dsc], "dsc").tolist() == [0.5, 0.0]


def test_a_failed_case_counts_where_there_is_a_worst_value() -> None:
    good = {"status": "ok", "dsc": 0.5, "flare_time_s": 40.0, "false_positive_ml": 3.0}
    crashed = {"status": "nonzero_exit", "dsc": 0.0, "flare_time_s": 2.0, "false_positive_ml": None}
    assert values([good, crashed], "dsc").tolist() == [0.5, 0.0]
    assert values([good, crashed], "flare_time_s").tolist() == [40.0]
    assert values([good, crashed], "false_positive_ml").tolist() == [3.0]
