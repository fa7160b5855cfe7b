from typing import Any

from evaluation.gpu.curve import Baseline
from evaluation.gpu.processes import GpuProcess, Sightings, contamination, foreign

MIB = 2**20


def appeared(pid: int, ticks: int | None = 1, t_s: float = 0.0) -> dict[str, Any]:
    identity = {"name": "python", "session": 7, "started_ticks": ticks, "cgroup": "0::/docker/abc"}
    return {"kind": "process", "t_s": t_s, "pid": pid, **identity}


def seen(t_s: float, sizes: dict[str, int | None]) -> dict[str, Any]:
    return {"kind": "processes", "t_s": t_s, "bytes": sizes}


def sightings(*events: dict[str, Any]) -> Sightings:
    found = Sightings()
    for event in events:
        found.add(event)
    return found


def process(pid: int, largest_mib: float | None = 512.0, name: str | None = "python") -> GpuProcess:
    return GpuProcess(pid, name, 7, "0::/", 0.0, 1.0, largest_mib, None)


def test_largest_memory_is_that_of_the_span() -> None:
    found = sightings(
        appeared(5),
        seen(1, {"5": 100 * MIB}),
        seen(2, {"5": 300 * MIB}),
        seen(3, {"5": 200 * MIB}),
        seen(4, {"5": 900 * MIB}),
    )
    expected = GpuProcess(5, "python", 7, "0::/docker/abc", 1, 3, 300, None)
    assert found.between(2, 3.5) == [expected]


def test_process_that_is_there_only_before_or_after_is_not_listed() -> None:
    found = sightings(appeared(5), seen(1, {"5": MIB}), appeared(6), seen(9, {"6": MIB}))
    assert [item.pid for item in found.between(2, 8)] == []
    assert [item.pid for item in found.between(0, 10)] == [5, 6]


def test_memory_that_nvml_does_not_know_is_none() -> None:
    found = sightings(appeared(5), seen(1, {"5": None}), seen(2, {"5": None}))
    assert found.between(0, 3)[0].largest_mib is None
    found.add(seen(3, {"5": 2 * MIB}))
    assert found.between(0, 3)[0].largest_mib == 2


def test_accounting_adds_what_an_ended_process_held_at_most() -> None:
    ended = {"kind": "ended", "t_s": 5.0, "pid": 5, "most_bytes": 4000 * MIB}
    found = sightings(appeared(5), seen(1, {"5": 100 * MIB}), ended)
    assert found.between(0, 2)[0].accounted_mib == 4000


def test_pid_that_comes_back_is_the_same_process_only_if_it_started_at_the_same_time() -> None:
    same = sightings(appeared(5, 1), seen(1, {"5": MIB}), appeared(5, 1), seen(3, {"5": MIB}))
    assert len(same.between(0, 9)) == 1
    other = sightings(appeared(5, 1), seen(1, {"5": MIB}), appeared(5, 2), seen(3, {"5": MIB}))
    assert len(other.between(0, 9)) == 2
    gone = sightings(appeared(5, 1), seen(1, {"5": MIB}), appeared(5, None), seen(3, {"5": MIB}))
    assert len(gone.between(0, 9)) == 2


def test_other_events_are_passed_over() -> None:
    started = {"kind": "started", "t_s": 0.0, "api": "v2", "accounting": False}
    assert sightings(started).between(0, 1) == []


def test_foreign_processes_are_those_that_are_not_owned() -> None:
    idle = process(9, largest_mib=0.0)
    assert foreign([process(5), idle], lambda item: item.pid == 5) == [idle]


def test_reasons_are_sentences() -> None:
    others = [process(123), process(4, None, "Xorg"), process(6, 3.2, None)]
    assert contamination(others, Baseline(300, 40)) == [
        "another process (PID 123, python, 512 MiB) was on the GPU",
        "another process (PID 4, Xorg, memory unknown) was on the GPU",
        "another process (PID 6, name unknown, 3 MiB) was on the GPU",
        "the baseline moved by 40 MiB in the second before the start",
    ]
    assert contamination([], Baseline(300, 16)) == []
