"""app.graphs on a stand-in for CUDA's graphs: what is captured when, and what is replayed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from app.graphs import Replayed, Run


@dataclass
class StandIn:
    """Replays by computing anew into the same tensor, as a CUDA graph does."""

    run: Run
    given: Tensor
    made: Tensor

    def replay(self) -> None:
        self.made.copy_(self.run(self.given))


@dataclass
class Recorder:
    error: Exception | None = None
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, run: Run, windows: Tensor) -> StandIn:
        self.shapes.append(tuple(windows.shape))
        if self.error is not None:
            raise self.error
        return StandIn(run, windows.clone(), torch.empty_like(windows))


@pytest.fixture
def eager() -> list[int]:
    return []


def doubled(calls: list[int]) -> Run:
    def run(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x * 2

    return run


def test_the_first_call_is_eager_the_second_captured_the_rest_replayed(eager: list[int]) -> None:
    capture, warnings = Recorder(), []  # type: tuple[Recorder, list[str]]
    replayed = Replayed(doubled(eager), capture, warnings.append)
    for number in range(5):
        x = torch.full((2, 3), float(number))
        assert torch.equal(replayed(x), x * 2)
        assert len(capture.shapes) == (number > 0)
    assert warnings == []


def test_every_shape_has_a_graph_of_its_own(eager: list[int]) -> None:
    capture = Recorder()
    replayed = Replayed(doubled(eager), capture, print)
    for size in (4, 4, 1, 4, 1, 4, 1):
        x = torch.randn(size, 3)
        assert torch.equal(replayed(x), x * 2)
    assert capture.shapes == [(4, 3), (1, 3)]


def test_a_result_may_be_changed_by_the_caller(eager: list[int]) -> None:
    """As the sliding window does, which weights logits in place."""
    replayed = Replayed(doubled(eager), Recorder(), print)
    for _ in range(4):
        found = replayed(torch.ones(1, 3))
        assert torch.equal(found, torch.full((1, 3), 2.0))
        found *= 7


@pytest.mark.parametrize("error", [RuntimeError("not allowed"), torch.OutOfMemoryError("no room")])
def test_a_failed_capture_costs_speed_and_a_line(error: Exception, eager: list[int]) -> None:
    capture, warnings = Recorder(error), []  # type: tuple[Recorder, list[str]]
    replayed = Replayed(doubled(eager), capture, warnings.append)
    for _ in range(4):
        x = torch.randn(1, 3)
        assert torch.equal(replayed(x), x * 2)
    assert eager == [1, 1, 1, 1]
    assert len(capture.shapes) == 1
    assert warnings == [f"kernels are launched one by one, as no CUDA graph was made ({error})"]


def test_other_errors_are_not_hidden(eager: list[int]) -> None:
    replayed = Replayed(doubled(eager), Recorder(TypeError("a fault of ours")), print)
    replayed(torch.ones(1, 3))
    with pytest.raises(TypeError):
        replayed(torch.ones(1, 3))
