from __future__ import annotations

from benchmarks.ranking import simulated


def test_simulated_results_are_as_flares() -> None:
    outcomes = simulated(25, 400)
    assert outcomes.values.shape == (4, 25, 400)
    dsc, nsd, time_s, area_mib_s = (metric[~outcomes.failed] for metric in outcomes.values)
    for share in (dsc, nsd):
        assert 0 <= share.min() < 0.2 < 0.8 < share.max() <= 1
    assert 0.5 < (time_s <= 45).mean() < 1
    assert 0.3 < (area_mib_s == 0).mean() < 1
    assert 0.01 < outcomes.failed.mean() < 0.03
