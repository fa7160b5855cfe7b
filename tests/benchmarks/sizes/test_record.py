from msgspec.structs import replace

from benchmarks.sizes.record import Measurement, medians

RUN = Measurement("huang", 8, "app", 0)


def test_medians_are_of_the_runs_that_ended_well() -> None:
    runs = [
        replace(RUN, repeat=i, wall_s=w, peak_rss_mib=100 + w, stages={"network": w / 2})
        for i, w in enumerate([4.0, 1.0, 2.0])
    ]
    failed = replace(RUN, repeat=3, error="exit code 1")
    other = replace(RUN, slices=9, wall_s=100.0)
    expected = replace(RUN, wall_s=2.0, peak_rss_mib=102.0, stages={"network": 1.0})
    assert medians(RUN, [*runs, failed, other]) == expected
    assert medians(RUN, [failed, other]) == replace(RUN, error="exit code 1")
    assert medians(RUN, [other]) == RUN
