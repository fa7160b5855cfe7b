"""app.memory.budget: what is planned and refused, and that a scan survives failed allocations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app import configuration, loading, on_device, preprocess
from app.image import Image
from app.listener import Listener
from app.memory.budget import (
    CONTEXT,
    LIBRARIES,
    MIB,
    MOST_CONTEXT,
    BudgetError,
    Needs,
    Plan,
    Room,
    make_plan,
)
from app.memory.buffers import StreamBuffers, stream_buffers, whole_buffers
from app.model import Model, ModelConfig, load_model
from app.networks import UNet
from app.predict import Options, Predictor
from tests.app.at_work import ignore, image, listener, predictor
from tests.app.conftest import names
from tests.app.published import DKFZ, HUANG
from tests.app.small_model import SPACING as GRID
from tests.app.small_model import write_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPACING = (2.5, 0.75, 0.75)
NEEDS = Needs(weights=10 * MIB, members=2, window=100 * MIB, patch=(32, 64, 64))  # 16 fill a GPU
BUFFERS = StreamBuffers(1, 1, (32, 64, 64), (200, 200), (512, 512), 2.0)


@pytest.fixture
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "load_network", lambda *_: None)
    monkeypatch.setattr(configuration, "compute_dtype", lambda *_: torch.float16)


def blank(shape: tuple[int, int, int]) -> Image:
    """A scan of zeros that takes no memory, and has no file to be like."""
    voxels = np.broadcast_to(np.zeros((), np.int16), shape)
    return Image(voxels, SPACING, None, ())  # type: ignore[arg-type]


def planned(config: ModelConfig, shape: tuple[int, int, int], budget_mib: int) -> Plan:
    there = Predictor(Model(Path(), config), Options(CPU, vram_budget_mib=budget_mib))
    return there.plan([blank(shape)])


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize(("config", "peak_mib"), [(HUANG, 867), (DKFZ, 1536)])
def test_published_networks_in_4_gb(config: ModelConfig, peak_mib: int) -> None:
    plans = {planned(config, (n, 512, 512), 4096) for n in (55, 554, 1500, 100_000)}
    assert len(plans) == 1  # the length of a scan does not come into it
    (plan,) = plans
    assert (plan.windows, plan.sections, plan.on_host) == (1, 16, False)
    assert plan.peak / MIB == pytest.approx(peak_mib, abs=1)


@pytest.mark.usefixtures("_no_weights")
@pytest.mark.parametrize(
    ("config", "device_mib", "host_mib"), [(HUANG, 862, 817), (DKFZ, 1503, 1259)]
)
def test_published_networks_in_less(config: ModelConfig, device_mib: int, host_mib: int) -> None:
    """The least with the stream's buffers on the GPU, and with a window there and no more."""
    shape = (300, 512, 512)
    assert planned(config, shape, device_mib).sections == 4
    assert not planned(config, shape, device_mib).on_host
    assert planned(config, shape, device_mib - 1).on_host
    assert planned(config, shape, host_mib).on_host
    with pytest.raises(BudgetError, match=f"allow {host_mib} MiB or more, or use --device cpu"):
        planned(config, shape, host_mib - 1)


def test_the_first_plan_that_fits() -> None:
    plans = [make_plan(mib, NEEDS, BUFFERS) for mib in range(8000, 499, -1)]
    peaks = [plan.peak / MIB for plan in plans]
    assert all(peak <= mib for peak, mib in zip(peaks, range(8000, 499, -1), strict=True))
    assert (plans[0].windows, plans[0].sections, plans[0].on_host) == (16, 16, False)
    choices = list(dict.fromkeys((p.windows, p.sections, p.on_host) for p in plans))
    on_device = [(w, s, False) for w in (16, 8, 4, 2, 1) for s in (16, 8, 4)]
    assert choices == [*on_device, *((w, 16, True) for w in (1,))]
    assert make_plan(8000, NEEDS, BUFFERS, batches=False).windows == 1


def test_many_heads_go_to_the_host_with_as_many_windows_as_fit() -> None:
    heavy = replace(BUFFERS, heads=104, patch=(96, 64, 64))
    plan = make_plan(1700, NEEDS, heavy)
    assert (plan.windows, plan.on_host) == (8, True)


def test_the_peak_by_hand() -> None:
    needs = Needs(weights=16, members=1, window=1600, patch=(8, 8, 8))
    fixed = CONTEXT + LIBRARIES
    assert needs.peak(1) == fixed + 1616 + 101
    assert needs.peak(2, beside=784, without=100) == fixed + 4000 + 250
    assert needs.peak(1, beside=784, without=15984) == fixed + 16000 + 1000
    beside, without = BUFFERS.beside_network(8), BUFFERS.without_network(8)
    plan = Plan(2, 8, False, NEEDS, BUFFERS)
    assert plan.peak == NEEDS.peak(2, beside, without)
    assert replace(plan, on_host=True).peak == NEEDS.peak(2)
    assert Plan().peak == 0


def test_smaller_plans() -> None:
    plan: Plan | None = Plan(4, 8, False, NEEDS, BUFFERS)
    seen = []
    while plan is not None:
        seen.append((plan.windows, plan.sections, plan.on_host))
        following = plan.smaller()
        assert following is None or following.peak < plan.peak
        plan = following
    assert seen == [(4, 8, False), (2, 8, False), (1, 8, False), (1, 8, True)]


def test_refusal_names_every_part() -> None:
    NEEDS.check(484)
    with pytest.raises(BudgetError) as refused:
        NEEDS.check(400)
    assert str(refused.value) == (
        "--vram-budget 400: one window needs 481 MiB (300 context, 64 CUDA libraries, 10 weights "
        "of 2 member(s), 100 window of 32 x 64 x 64, 7 gaps) with everything else on the host; "
        "allow 481 MiB or more, or use --device cpu"
    )


def test_refusal_comes_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(configuration, "load_network", lambda *_: loaded.append("weights"))
    model = load_model(write_model(tmp_path / "model"))
    with pytest.raises(BudgetError, match="--vram-budget 300: one window needs"):
        Predictor(model, Options(CUDA, vram_budget_mib=300))
    assert loaded == []
    Predictor(model, Options(CUDA, vram_budget_mib=700))
    assert loaded == ["weights"]


def test_the_gpu_is_touched_only_when_a_scan_is_ready_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Touched(Exception):
        pass

    def touch(*_: object) -> None:
        raise Touched

    ready: list[tuple[float, float]] = []

    def limits(*arguments: Any) -> tuple[float, float]:
        ready.append(original(*arguments))
        return ready[-1]

    original = preprocess.limits
    monkeypatch.setattr(preprocess, "limits", limits)  # the last look at the whole scan
    monkeypatch.setattr(on_device, "Room", touch)
    there = predictor(tmp_path, Options(CUDA, vram_budget_mib=700))
    scan = image(tmp_path, (12, 40, 40), GRID)
    assert not ready
    with pytest.raises(Touched):
        there.segment([scan])
    assert len(ready) == 1


class Gpu:
    """A GPU by what torch says of it, in MiB: the context takes what is not free at first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int, free: int) -> None:
        self.total, self.free, self.reserved, self.emptied = total * MIB, free * MIB, 0, 0
        self.allowed: list[int] = []
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.free, self.total))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: self.reserved)
        monkeypatch.setattr(torch.cuda, "empty_cache", self._empty)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self._limit)

    def takes(self, torchs: int, outside: int = 0) -> None:
        """torch's allocator takes something, and libraries do, which it does not see."""
        self.reserved += torchs * MIB
        self.free -= (torchs + outside) * MIB

    def _empty(self) -> None:
        self.emptied += 1

    def _limit(self, fraction: float, index: int | None) -> None:
        assert index is None
        self.allowed.append(round(fraction * self.total / MIB))


def test_torch_is_held_to_what_the_context_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured, not assumed: 621 MiB on an H200, less elsewhere."""
    gpu = Gpu(monkeypatch, total=16000, free=15379)
    room = Room(1400, CUDA)
    assert (room.context, room.budget_mib) == (621 * MIB, 1400)
    assert gpu.allowed == [1400 - 621 - LIBRARIES // MIB]
    gpu = Gpu(monkeypatch, total=16000, free=15700)
    assert Room(1400, CUDA).context == 300 * MIB
    assert gpu.allowed == [1400 - 300 - LIBRARIES // MIB]


def test_libraries_are_measured_once_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch, total=16000, free=15379)
    room = Room(1400, CUDA)
    gpu.takes(500, outside=30)
    room.settle()
    assert gpu.allowed[-1] == 1400 - 621 - 30
    assert gpu.emptied == 0
    gpu.takes(200, outside=90)  # more than was thought of: torch lets go of what it does not need
    room.settle()
    assert gpu.allowed[-1] == 1400 - 621 - 120
    assert gpu.emptied == 1


def test_others_on_the_gpu_do_not_count_as_context(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch, total=80_000, free=50_000)
    room = Room(4096, CUDA)
    assert room.context == MOST_CONTEXT
    assert room.budget_mib == 4096
    assert gpu.allowed == [4096 - MOST_CONTEXT // MIB - LIBRARIES // MIB]


def test_less_free_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch, total=4000, free=1500)
    room = Room(4096, CUDA)
    assert room.budget_mib == 1500 + MOST_CONTEXT // MIB
    assert gpu.allowed == [1500 - LIBRARIES // MIB]


def test_what_is_free_is_planned_with_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(monkeypatch, total=2000, free=1500)
    there = predictor(tmp_path, Options(CUDA, vram_budget_mib=4096))
    monkeypatch.setattr(there, "_parts", lambda *_: None)
    scan = image(tmp_path, (12, 40, 40), GRID)
    said: list[str] = []
    warned: list[str] = []
    there._first([scan], None, Listener(ignore, said.append, warned.append))
    assert warned == [
        "only 1500 MiB of the GPU's memory are free: planned for 2000 MiB, not --vram-budget 4096"
    ]
    (plan,) = said
    assert "at most" in plan


def test_refused_beside_the_context_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would fit beside the least context does not fit beside this one."""
    Gpu(monkeypatch, total=16000, free=15379)
    there = predictor(tmp_path, Options(CUDA, vram_budget_mib=600))
    with pytest.raises(BudgetError, match=r"one window needs \d+ MiB \(621 context"):
        there.plan([blank((12, 40, 40))])


def test_a_scan_that_must_be_there_at_once_goes_to_the_host_when_it_is_long() -> None:
    thick = replace(HUANG, spacing=(1.0, 1.0, 6.0))  # sections across another axis: one slab
    for buffers, spacing, config in (
        (whole_buffers, SPACING, HUANG),
        (partial(stream_buffers, probabilities=False), (1.0, 1.0, 6.0), thick),
    ):
        plans = {
            n: make_plan(4096, NEEDS, buffers((n, 512, 512), spacing, config, 2), batches=False)
            for n in (100, 200, 20_000, 30_000)
        }
        assert [plan.on_host for plan in plans.values()] == [False, False, True, True]
        assert plans[100].peak < plans[200].peak
        assert plans[20_000].peak == plans[30_000].peak


def test_a_streamed_scan_of_one_slice_needs_no_less() -> None:
    buffers = [stream_buffers((n, 512, 512), SPACING, HUANG, 1, False) for n in (1, 2, 300)]
    assert buffers[0] == buffers[1] == buffers[2]


class Failing:
    """The first calls of a network find no memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: list[int]) -> None:
        self.batches: list[int] = []
        forward = UNet.forward

        def run(network: UNet, x: Tensor) -> Tensor:
            if x.device.type == "meta":
                return forward(network, x)
            self.batches.append(len(x))
            if len(self.batches) in failures:
                raise torch.OutOfMemoryError(
                    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity"
                )
            return forward(network, x)

        monkeypatch.setattr(UNet, "forward", run)


Segment = Callable[..., tuple[bytes, list[str]]]


@pytest.fixture
def segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Segment:
    """Predicts with a plan of so many windows a batch; gives the mask's file and the warnings."""
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: False)
    model = load_model(write_model(tmp_path / "model"))
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "X.nii.gz"

    def run(exact: bool = False, y_mm: float = 1.2, windows: int = 4) -> tuple[bytes, list[str]]:
        scan = [image(tmp_path, (30, 40, 36), (4.0, y_mm, 1.3))]
        there = Predictor(model, Options(CPU, exact, vram_budget_mib=4096))
        plan = replace(there.plan(scan), windows=windows)
        monkeypatch.setattr(there, "plan", lambda channels: plan)
        warnings: list[str] = []
        there.write(scan, target, listener(warnings), None)
        assert names(target.parent) == ["X.nii.gz"]
        return target.read_bytes(), warnings

    return run


def test_failed_allocations_cost_time_and_nothing_else(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first, half way, and right at the end of a row: the mask is that of single windows."""
    expected, warnings = segment()
    assert warnings == []
    calls = Failing(monkeypatch, [1, 10, 40])
    found, warnings = segment()
    assert len(warnings) == 3
    before, _, after = warnings[0].partition("; ")
    assert before.startswith(
        "allocation failed (CUDA out of memory. Tried to allocate 20.00 MiB) with 4 windows per "
        "batch, slabs of 16 sections, buffers on the device, at most "
    )
    assert after.startswith("starting again with 2 windows per batch, slabs of 16 sections, ")
    assert [w.rpartition("with ")[2][:9] for w in warnings] == [
        "2 windows",
        "1 window ",
        "1 window ",
    ]
    assert "buffers on the host" in warnings[2].rpartition("with ")[2]
    assert calls.batches[0] == 4
    assert max(calls.batches[1:10]) == 2
    assert set(calls.batches[10:]) == {1}
    assert found == expected


def test_when_the_smallest_plan_fails_nothing_is_left(
    segment: Segment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Failing(monkeypatch, [1, 2, 3, 9])
    with pytest.raises(torch.OutOfMemoryError):
        segment()
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(("exact", "y_mm"), [(True, 1.2), (False, 6.0)])
def test_at_once_it_falls_back_to_the_host(
    exact: bool, y_mm: float, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = segment(exact, y_mm, windows=1)
    Failing(monkeypatch, [5])
    found, warnings = segment(exact, y_mm, windows=1)
    assert found == expected
    assert len(warnings) == 1
    assert "buffers on the host" in warnings[0]


def test_without_a_budget_there_is_no_plan(tmp_path: Path) -> None:
    plan = predictor(tmp_path, Options(CPU)).plan([blank((9, 9, 9))])
    assert plan == Plan()
    assert str(plan) == "1 window per batch, slabs of 16 sections, buffers on the device"
