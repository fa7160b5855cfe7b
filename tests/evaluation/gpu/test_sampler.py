"""The sampling process for real, against the stand-in driver: what it reads, and how it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.gpu.curve import baseline, measure
from evaluation.gpu.processes import contamination, foreign
from evaluation.gpu.sampler import STALL_S, GpuLost, Sampler
from tests.evaluation.gpu.nvml import FakeDevice, FakeNvml, FakeProcess, Segment

ROOT = Path(__file__).resolve().parents[3]
INTERVAL_S = 0.02
IDLE_MIB = 300.0
# What a loaded machine may take for anything that is awaited here; nothing is measured by it.
PATIENCE_S = 20.0


@pytest.fixture
def busy_core() -> Iterator[None]:
    """Another process that spins on a core for the whole test."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        try:
            yield
        finally:
            spinning.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_s, "waited in vain"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(") ")[2].startswith("Z")  # ended, not yet collected


def watch_until(sampler: Sampler, end_s: float) -> None:
    while time.monotonic() < end_s:
        sampler.check()
        time.sleep(0.02)


def watch_until_lost(sampler: Sampler) -> GpuLost:
    try:
        watch_until(sampler, time.monotonic() + PATIENCE_S)
    except GpuLost as lost:
        return lost
    raise AssertionError("the loss was not noticed")


@pytest.mark.alone
@pytest.mark.usefixtures("busy_core")
def test_known_curve_beside_a_busy_core(fake: FakeNvml, tmp_path: Path) -> None:
    # Sampling misses a step's time by up to half an interval. These steps, 2500 MiB in all, could
    # at worst sum up to 25 MiB s: 0.2 % of the area. The rest of 0.5 % is for late calls.
    shape = [
        Segment(0.5, 0, 0),  # start-up
        Segment(0.3, 400, 400),
        Segment(1.5, 400, 2400),
        Segment(2.0, 2400, 2400),
        Segment(0.5, 2900, 3900),
        Segment(0.2, 4000, 4000),
        Segment(0.3, 4000, 1900),
        Segment(2.0, 1900, 1500),
        Segment(0.5, 700, 700),
    ]
    with Sampler("GPU-1", tmp_path / "gpu", interval_s=INTERVAL_S) as sampler:
        played = fake.play(shape, start_s=time.monotonic() + 1.1)
        watch_until(sampler, played.end_s)
        assert sampler.wait_for_baseline(IDLE_MIB, played.end_s)
        curve = sampler.curve(played.start_s - 1, time.monotonic())
    before = baseline(curve, played.start_s)
    usage = measure(curve, played.start_s, played.end_s, before)

    assert (before.mib, before.spread_mib) == (IDLE_MIB, 0)
    assert usage.area_mib_s == pytest.approx(played.area_mib_s(), rel=0.005)
    assert usage.peak_mib == played.peak_mib()
    assert usage.first_use_s == pytest.approx(0.5, abs=usage.interval_max_s)
    assert usage.tail_s is not None
    # Half of all calls come within a twentieth of their time, although a core is taken.
    assert usage.interval_p50_s == pytest.approx(INTERVAL_S, rel=0.05)
    # No drift: what each gap has beyond whole intervals adds up to nothing. (Pauses of one interval
    # after each call would add up to more than an interval within these seconds.)
    gaps_s = np.diff(curve.before_s)
    excess_s = np.cumsum(gaps_s - np.round(gaps_s / INTERVAL_S) * INTERVAL_S)
    assert np.median(excess_s[-100:]) == pytest.approx(np.median(excess_s[:100]), abs=0.003)


@pytest.mark.alone
def test_plateaus_longer_than_two_intervals_are_found_exactly(
    fake: FakeNvml, tmp_path: Path
) -> None:
    plateau_s = 3 * INTERVAL_S
    heights_mib = [1000.0 + 64 * i for i in range(20)]
    shape = [Segment(plateau_s, h, h) for height in heights_mib for h in (height, 0)]
    with Sampler("GPU-1", tmp_path / "gpu", interval_s=INTERVAL_S) as sampler:
        played = fake.play(shape, start_s=time.monotonic() + 0.1)
        watch_until(sampler, played.end_s)
        assert sampler.wait_for_baseline(IDLE_MIB, played.end_s)
        curve = sampler.curve(played.start_s, played.end_s)
    judged = 0
    for number, height_mib in enumerate(heights_mib):
        start_s = played.start_s + 2 * number * plateau_s
        around = curve.between(start_s - plateau_s, start_s + 2 * plateau_s)
        # On a loaded machine some intervals are longer than asked for: those prove nothing.
        if 2 * np.diff(around.t_s).max() < plateau_s:
            judged += 1
            within = curve.between(start_s, start_s + plateau_s)
            assert within.used_mib.max() == height_mib + IDLE_MIB
    assert judged >= 5


@pytest.mark.parametrize("api", ["v1", "v2"])
def test_both_memory_apis(fake: FakeNvml, tmp_path: Path, api: str) -> None:
    fake.update(api=api)
    with Sampler("GPU-1", tmp_path / "gpu") as sampler:
        curve = sampler.curve(0, time.monotonic())
    assert curve.api == api
    reserved_mib = 500.0
    assert curve.total_mib[0] == 24576
    assert curve.free_mib[0] == 24576 - reserved_mib - IDLE_MIB
    if api == "v1":
        assert np.isnan(curve.reserved_mib).all()
        assert curve.used_mib[0] == IDLE_MIB + reserved_mib
    else:
        assert curve.reserved_mib[0] == reserved_mib
        assert curve.used_mib[0] == IDLE_MIB


def test_gpu_is_addressed_by_uuid(fake: FakeNvml, tmp_path: Path) -> None:
    mig = FakeDevice("MIG-7", 4864, 11.0, parent=0)
    fake.update(devices=(FakeDevice("GPU-1"), FakeDevice("GPU-2", idle_mib=7.0), mig))
    for uuid, idle_mib in (("GPU-2", 7.0), ("MIG-7", 11.0)):
        with Sampler(uuid, tmp_path / uuid) as sampler:
            assert sampler.curve(0, time.monotonic()).used_mib[0] == idle_mib


@pytest.mark.alone
def test_latency_of_a_call_lies_between_its_stamps(fake: FakeNvml, tmp_path: Path) -> None:
    fake.update(latency_s=0.03)
    with Sampler("GPU-1", tmp_path / "gpu", interval_s=INTERVAL_S) as sampler:
        time.sleep(1)
        curve = sampler.curve(0, time.monotonic())
    assert (curve.after_s - curve.before_s).min() >= 0.03
    # Every second deadline is met: the one that passes during a call is not made up for.
    assert np.median(np.diff(curve.before_s)) == pytest.approx(0.04, rel=0.1)


def test_tail_of_a_slow_release(fake: FakeNvml, tmp_path: Path) -> None:
    with Sampler("GPU-1", tmp_path / "gpu", interval_s=INTERVAL_S) as sampler:
        played = fake.play([Segment(0.3, 800, 800), Segment(0.5, 800, 0)], time.monotonic() + 0.2)
        finish_s = played.start_s + 0.3
        assert sampler.wait_for_baseline(IDLE_MIB, finish_s)
        curve = sampler.curve(played.start_s - 0.2, time.monotonic())
    usage = measure(curve, played.start_s, finish_s, baseline(curve, played.start_s))
    # It falls to 16 MiB after 0.49 s of 0.5.
    assert usage.tail_s == pytest.approx(0.49, abs=usage.interval_max_s)
    assert usage.tail_area_mib_s == pytest.approx(0.5 * 800 / 2, rel=0.05)


def test_tail_that_does_not_end_is_given_up(fake: FakeNvml, tmp_path: Path) -> None:
    with Sampler("GPU-1", tmp_path / "gpu") as sampler:
        finish_s = fake.play([Segment(60, 800, 800)]).start_s
        assert not sampler.wait_for_baseline(IDLE_MIB, finish_s, timeout_s=0.3)
        assert time.monotonic() >= finish_s + 0.3
        assert sampler.curve(finish_s, time.monotonic()).t_s[-1] > finish_s


def test_gpu_lost_in_the_middle(fake: FakeNvml, tmp_path: Path) -> None:
    with Sampler("GPU-1", tmp_path / "gpu") as sampler:
        lost_s = time.monotonic() + 0.3
        fake.update(lost_s=lost_s)
        lost = watch_until_lost(sampler)
        assert str(lost) == "GPU GPU-1 was lost: NVML says 'GPU is lost' (code 15)"
        with pytest.raises(GpuLost, match="code 15"):
            sampler.check()
        assert is_gone(sampler.pid)
        assert len(sampler.curve(0, lost_s)) > 1  # what was sampled can still be read


def test_call_that_fails_is_quoted(fake: FakeNvml, tmp_path: Path) -> None:
    fake.update(fail_call=20, fail_code=999)
    with Sampler("GPU-1", tmp_path / "gpu") as sampler:
        assert "NVML says 'Unknown Error' (code 999)" in str(watch_until_lost(sampler))


def test_call_that_hangs_is_noticed(fake: FakeNvml, tmp_path: Path) -> None:
    stall_s = 1.0
    with Sampler("GPU-1", tmp_path / "gpu", stall_s=stall_s) as sampler:
        fake.update(hang_s=time.monotonic() + 0.2)
        lost = str(watch_until_lost(sampler))
        said = re.search(r"no sample for (.+) s, so an NVML call hangs", lost)
        assert said is not None
        assert stall_s <= float(said[1]) < STALL_S  # what it waits for unless it is told
        assert is_gone(sampler.pid)


def test_sampler_that_is_killed_is_noticed(fake: FakeNvml, tmp_path: Path) -> None:
    with Sampler("GPU-1", tmp_path / "gpu") as sampler:
        os.kill(sampler.pid, signal.SIGKILL)
        assert "ended with exit code -9 (no output)" in str(watch_until_lost(sampler))


def test_start_says_why_it_cannot(fake: FakeNvml, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"GPU GPU-9 cannot be sampled: NVML says 'Not Found"):
        Sampler("GPU-9", tmp_path / "unknown").start()
    fake.update(hang_s=0.0)
    hanging = Sampler("GPU-1", tmp_path / "hanging")
    with pytest.raises(EvaluationError, match=r"no answer from NVML in 0\.5 s"):
        hanging.start(timeout_s=0.5)
    assert is_gone(hanging.pid)
    with pytest.raises(EvaluationError, match=r"samples\.bin exists"):
        Sampler("GPU-1", tmp_path / "hanging").start()


def test_stop_ends_the_process(fake: FakeNvml, tmp_path: Path) -> None:
    sampler = Sampler("GPU-1", tmp_path / "gpu")
    with sampler:
        assert not is_gone(sampler.pid)
    assert is_gone(sampler.pid)
    sampler.stop()


@pytest.mark.parametrize("hangs", [False, True])
def test_sampler_dies_with_a_killed_parent(fake: FakeNvml, tmp_path: Path, hangs: bool) -> None:
    script = (
        "import sys, time; from pathlib import Path; from evaluation.gpu.sampler import Sampler\n"
        "sampler = Sampler('GPU-1', Path(sys.argv[1])); sampler.start()\n"
        "print(sampler.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "gpu")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if hangs:
            fake.update(hang_s=0.0)
            time.sleep(0.1)
        assert not is_gone(pid)
        parent.kill()
    wait_until(lambda: is_gone(pid))


def test_processes_and_contamination(fake: FakeNvml, tmp_path: Path) -> None:
    own = FakeProcess(os.getpid(), 900)
    with (
        subprocess.Popen(["sleep", "60"], start_new_session=True) as other,
        Sampler("GPU-1", tmp_path / "gpu") as sampler,
    ):
        try:
            start_s = time.monotonic()
            fake.list_processes([own])
            wait_until(lambda: len(sampler.processes(start_s, time.monotonic())) == 1)
            clean_s = time.monotonic()
            fake.list_processes([own, FakeProcess(other.pid, 512), FakeProcess(other.pid, 3, "g")])
            wait_until(lambda: len(sampler.processes(start_s, time.monotonic())) == 2)
        finally:
            other.kill()
        curve = sampler.curve(0, time.monotonic())
        clean = sampler.processes(start_s, clean_s)
        found = sampler.processes(start_s, time.monotonic())
    before = baseline(curve, time.monotonic())
    session = os.getsid(0)
    assert contamination(foreign(clean, lambda p: p.session == session), before) == []
    assert contamination(foreign(found, lambda p: p.session == session), before) == [
        f"another process (PID {other.pid}, sleep, 512 MiB) was on the GPU"
    ]
    assert found[0].cgroup == Path("/proc/self/cgroup").read_text()
    assert found[0].first_seen_s >= start_s


def test_processes_without_known_memory_and_accounting(fake: FakeNvml, tmp_path: Path) -> None:
    fake.update(accounting=True)
    fake.list_processes([FakeProcess(os.getpid(), -1)])
    with Sampler("GPU-1", tmp_path / "gpu") as sampler:
        wait_until(lambda: len(sampler.processes(0, time.monotonic())) == 1)
        assert sampler.processes(0, time.monotonic())[0].largest_mib is None
        fake.list_processes([FakeProcess(os.getpid(), 0, "x", accounted_mib=4100)])
        wait_until(lambda: sampler.processes(0, time.monotonic())[0].accounted_mib == 4100)
