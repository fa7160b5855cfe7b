from benchmarks.sizes.record import Case, Measurement, case

RUN = Measurement("huang", 8, "app", 0, wall_s=2.0, stages={"network": 1.5})


def test_medians_are_of_the_runs_that_ended_well() -> None:
    runs = [
        Measurement("huang", 8, "app", i, wall_s=w, peak_rss_mib=100 + w, stages={"network": w / 2})
        for i, w in enumerate([4.0, 1.0, 2.0])
    ]
    runs.append(Measurement("huang", 8, "app", 3, error="exit code 1"))
    found = case(runs, on_gpu=False)
    assert (found.wall_s, found.peak_mib, found.area_mib_s) == (2.0, 102.0, None)
    assert found.stages == {"network": 1.0}
    assert case(runs, on_gpu=True).peak_mib is None
    assert case(runs[3:], on_gpu=False) == Case(error="exit code 1")
    assert case([], on_gpu=False) == Case()
