"""app.deadline: what it foresees, what it decides, and that a slowed network is done in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import app.clock
import app.deadline
from app.clock import StageClock
from app.deadline import MARGIN_S, Deadline, Forecast, TooSlow, Work
from app.image import read_image
from app.model import load_model
from app.networks import UNet
from app.predict import Options, Predictor
from app.sliding_window import larger_steps, window_count
from tests.app.at_work import listener
from tests.app.conftest import names
from tests.app.small_model import write_model
from tests.nnunet_models import smooth_noise, write_scan

CPU = torch.device("cpu")
GRID, PATCH = (40, 48, 45), (8, 16, 16)  # of the model's and the scan's below
AT_HALF, AT_ONE = 9 * 5 * 5, 5 * 3 * 3


def test_the_forecast_by_hand() -> None:
    forecast = Forecast(left_s=10.0, window_s=0.5, others_s=3.0, spent_s=1.0)
    assert forecast.rest_s(4) == pytest.approx(4 * 0.5 + 2)
    assert forecast.anew_s(4) == pytest.approx(4 * 0.5 * 1.1 + 3)
    assert forecast.choose([20, 13, 12, 8]) == 2  # 7.15 s are too much, 6.6 s are not
    assert forecast.choose([20, 13]) is None
    assert forecast.choose([]) is None


class Time:
    """time.perf_counter, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def run(
    now: Time,
    budget_s: float,
    window_s: Callable[[int], float],
    step_size: float = 0.5,
    preprocess_s: float = 0.0,
) -> list[str]:
    """Go through windows that take ``window_s(number)``; gives the warnings."""
    clock, warnings = StageClock(), list[str]()
    before = clock.so_far()
    work = Work(GRID, PATCH, step_size, 1, 1)
    deadline = Deadline(now() + budget_s, work, clock, before, CPU, warnings.append)

    def slabs() -> Iterator[Tensor]:
        for _ in range(GRID[0] // 4):
            now.now += preprocess_s
            yield torch.zeros(1, 4, 1, 1)

    feeding = deadline.feeding(clock.timed("preprocess", slabs()))
    of = window_count(GRID, PATCH, step_size)
    with clock.stage("network"):
        next(feeding), next(feeding)  # as many planes as a patch has
        for done in range(1, of + 1):
            now.now += window_s(done)
            deadline.on_window(done, of)
    return warnings


def test_enough_time(now: Time) -> None:
    assert run(now, AT_HALF * 0.1 * 1.2 + MARGIN_S, lambda n: 0.1) == []


def test_the_first_window_may_take_longer(now: Time) -> None:
    """It warms up: 20 s, then 0.1 s each."""
    assert run(now, 20 + AT_HALF * 0.1 * 1.2 + MARGIN_S, lambda n: 20 if n == 1 else 0.1) == []


def test_the_smallest_step_that_makes_it(now: Time) -> None:
    steps = larger_steps(GRID, PATCH, 0.5)
    for index, step in enumerate(steps):
        windows = window_count(GRID, PATCH, step)
        left_s = 0.2 + windows * 0.1 * 1.1 + 0.01  # two windows are lost
        with pytest.raises(TooSlow) as slow:
            run(now, left_s + MARGIN_S, lambda n: 0.1)
        assert slow.value.step_size == step
        assert not slow.value.last
        message = str(slow.value)
        assert message.startswith(f"0.1 s a window: {AT_HALF} windows (step 0.5) would end ")
        assert message.endswith(f"; starting again with step {step:.3g} ({windows} windows)")
        assert index < len(steps)


def test_not_even_step_1_makes_it(now: Time) -> None:
    with pytest.raises(
        TooSlow, match=r"no step makes it; starting again with step 1 \(45 win"
    ) as s:
        run(now, 3 + MARGIN_S, lambda n: 0.1)
    assert (s.value.step_size, s.value.last) == (1.0, True)
    (warning,) = run(now, 3 + MARGIN_S, lambda n: 0.1, step_size=1.0)
    assert warning.endswith("no larger step would be sooner, going on")


def test_windows_that_become_slow_later_are_noticed(now: Time) -> None:
    """At 64 of 225: 20 s have gone, and step 1 takes less than what is left."""
    with pytest.raises(TooSlow) as slow:
        run(now, 60, lambda n: 0.1 if n < 16 else 0.4)
    assert 0.5 < slow.value.step_size < 1


def test_what_other_stages_take_is_foreseen(now: Time) -> None:
    """Ten slabs of 0.5 s each, and three times as much for what comes after."""
    left_s = AT_HALF * 0.01 * 1.1 + 4 * 10 * 0.5
    assert run(now, left_s + MARGIN_S + 0.1, lambda n: 0.01, preprocess_s=0.5) == []
    with pytest.raises(TooSlow):
        run(now, left_s + MARGIN_S - 2.5, lambda n: 0.01, preprocess_s=0.5)


class Case:
    """A scan of 225 windows at step 0.5 and a network that takes 0.04 s for each.

    By a clock of its own, on which nothing else takes time: a busy machine must not decide.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.target = folder / "out" / "X.nii.gz"
        self.target.parent.mkdir()
        self.voxels, self.file = smooth_noise((40, 60, 56), 0), folder / "X.nii.gz"
        self.model = load_model(write_model(folder / "model"))
        self.calls: list[int] = []
        self.window_s, self.fails, self.now_s = 0.04, 0, 1000.0
        clock = SimpleNamespace(perf_counter=lambda: self.now_s)
        for module in (app.clock, app.deadline):
            monkeypatch.setattr(module, "time", clock)
        forward = UNet.forward

        def slow(network: UNet, x: Tensor) -> Tensor:
            if x.device.type == "meta":
                return forward(network, x)
            self.calls.append(len(x))
            if len(self.calls) == self.fails:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            self.now_s += self.window_s * len(x)
            return forward(network, x)

        monkeypatch.setattr(UNet, "forward", slow)

    def run(
        self,
        budget_s: float | None,
        spacing: tuple[float, float, float] = (3.0, 1.2, 1.2),
        **options: float,
    ) -> tuple[float, list[str]]:
        scan = [read_image(write_scan(self.file, self.voxels, spacing))]
        predictor = Predictor(self.model, Options(CPU, **options))  # type: ignore[arg-type]
        self.calls.clear()
        warnings: list[str] = []
        start = self.now_s
        deadline = None if budget_s is None else start + budget_s
        predictor.write(scan, self.target, listener(warnings), deadline)
        assert names(self.target.parent) == ["X.nii.gz"]
        return self.now_s - start, warnings


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(tmp_path, monkeypatch)


def test_a_slowed_network_is_done_in_time(case: Case) -> None:
    """9 s at step 0.5, 1.8 s at step 1; 7 s less the margin are for about 100 windows."""
    took_s, warnings = case.run(7.0)
    assert took_s < 7
    (warning,) = warnings
    assert "windows (step 0.5) would end" in warning
    found = case.target.read_bytes()
    windows = len(case.calls) - 2
    assert AT_ONE < windows < AT_HALF
    chosen = [s for s in larger_steps(GRID, PATCH, 0.5) if window_count(GRID, PATCH, s) == windows]
    case.window_s = 0
    assert case.run(None, step_size=chosen[0])[1] == []
    assert case.target.read_bytes() == found


def test_no_step_but_the_largest_is_worth_it(case: Case) -> None:
    took_s, warnings = case.run(2.5)
    assert len(warnings) == 1
    assert "no step makes it; starting again with step 1 (45 windows)" in warnings[0]
    assert len(case.calls) == 2 + AT_ONE
    assert took_s < 7  # late, but sooner than without


def test_time_and_memory_use_one_way_to_start_again(case: Case) -> None:
    case.fails = 6  # batches: three until it starts again for want of time, two of the next attempt
    took_s, warnings = case.run(9.0, vram_budget_mib=4096)
    assert took_s < 9
    assert case.calls[:3] == [16, 9, 16]
    assert "starting again with step" in warnings[0]
    assert "allocation failed (CUDA out of memory.)" in warnings[1]


def test_a_scan_that_is_there_at_once_has_a_deadline_too(case: Case) -> None:
    """Sections 6 mm apart along y: one slab; (16, 240, 45) voxels, 435 windows or 8.7 s."""
    case.window_s = 0.02
    took_s, warnings = case.run(7.0, (1.2, 6.0, 1.2))
    assert took_s < 7
    (warning,) = warnings
    assert "435 windows (step 0.5) would end" in warning
    assert 90 <= len(case.calls) - 2 < 435


def test_time_enough_changes_nothing(case: Case) -> None:
    case.window_s = 0
    case.run(None)
    expected = case.target.read_bytes()
    assert case.run(600.0)[1] == []
    assert case.target.read_bytes() == expected
    assert len(case.calls) == AT_HALF
