"""app.on_device with stand-ins for a GPU: what is made when, and who is told what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from app import on_device
from app.graphs import Run
from app.networks import InstanceNorm
from app.on_device import OnDevice

CUDA = torch.device("cuda")
X = torch.ones(1, 8, 2, 2, 2)


class Network(InstanceNorm):
    """One norm, which is moved nowhere."""

    def __init__(self) -> None:
        super().__init__(8, affine=True)

    def to(self, *_: Any, **__: Any) -> Network:
        return self


class Kernel:
    def fits(self, channels: int) -> bool:
        return channels == 8

    def __call__(self, x: Tensor, *_: object) -> Tensor:
        return x * 3


def failing(run: Run, windows: Tensor) -> Any:
    raise RuntimeError("not captured")


def run_of(network: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: network(x)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    loads: list[torch.device] = []

    def load(device: torch.device) -> tuple[Kernel, str]:
        loads.append(device)
        return Kernel(), "norm kernel: cubin sm_90"

    monkeypatch.setattr(on_device, "load_norm_kernel", load)
    monkeypatch.setattr(on_device, "CudaCapture", lambda: failing)
    return loads


def test_passes_are_made_once_and_again_when_forgotten(loads: list[torch.device]) -> None:
    said: list[str] = []
    networks: list[Any] = [Network(), Network()]
    there = OnDevice(networks, run_of, CUDA, None)
    passes = there.passes(said.append, pytest.fail)
    assert len(passes) == 2
    assert there.passes(said.append, pytest.fail) is passes
    assert [torch.equal(p(X), X * 3) for p in passes] == [True, True]  # by the kernel
    there.forget()
    assert there.passes(said.append, pytest.fail) is not passes
    assert loads == [CUDA]
    assert said == ["norm kernel: cubin sm_90"] * 2


@pytest.mark.usefixtures("loads")
def test_a_graph_that_fails_is_said_of_the_scan_at_hand() -> None:
    there = OnDevice(cast("Any", [Network()]), run_of, CUDA, None)
    first: list[str] = []
    second: list[str] = []
    (run,) = there.passes(print, first.append)
    run(X)  # eager
    (run,) = there.passes(print, second.append)
    assert torch.equal(run(X), X * 3)
    assert first == []
    assert len(second) == 1
    assert "not captured" in second[0]


def test_a_cpu_has_neither_room_nor_kernels(loads: list[torch.device]) -> None:
    network: Any = Network()
    there = OnDevice([network], run_of, torch.device("cpu"), 4096)
    assert there.room is None
    there.passes(pytest.fail, pytest.fail)
    assert network.fused is None
    assert loads == []


def test_memory_is_looked_at_after_the_first_windows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    settled: list[int] = []

    class Room:
        def __init__(self, budget_mib: int, device: torch.device) -> None:
            assert (budget_mib, device) == (1400, CUDA)

        def settle(self) -> None:
            settled.append(1)

    monkeypatch.setattr(on_device, "Room", Room)
    there = OnDevice([], run_of, CUDA, 1400)
    told: list[int] = []
    on_window = there.settling(lambda done, of: told.append(done))
    for done in (1, 2, 3):
        on_window(done, 3)
    assert (told, len(settled)) == ([1, 2, 3], 1)
