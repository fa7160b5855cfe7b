"""app.host_windows on stand-ins for CUDA's streams: what runs in which order, on which memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from app.host_windows import Uploaded
from tests.app.at_work import PATCH, noise, slid


class Stream:
    """Does everything at once, and writes down what was asked."""

    def __init__(self, said: list[str], name: str) -> None:
        self.said, self.name = said, name

    def wait_stream(self, other: Stream) -> None:
        self.said.append(f"{self.name} waits for {other.name}")


class Event:
    said: list[str]

    def record(self, stream: Stream) -> None:
        self.said.append(f"event on {stream.name}")

    def synchronize(self) -> None:
        self.said.append("host waits")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order. Memory cannot be pinned here."""
    said: list[str] = []
    current, uploads = Stream(said, "network"), Stream(said, "uploads")
    empty = torch.empty

    @contextlib.contextmanager
    def within(stream: Stream) -> Iterator[None]:
        said.append(f"on {stream.name}")
        yield

    def pinned(*shape: Any, pin_memory: bool = False, **more: Any) -> Tensor:
        if pin_memory:
            said.append("pinned")
        return empty(*shape, **more)

    monkeypatch.setattr(Event, "said", said, raising=False)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: uploads)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", within)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: None)
    return said


def test_the_host_goes_on_until_it_wants_the_logits(said: list[str]) -> None:
    uploaded = Uploaded(lambda x: x + 1, torch.device("cpu"))
    first, second = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    started = uploaded(first)
    order = ["pinned", "on uploads", "network waits for uploads", "pinned", "event on network"]
    assert said == order
    following = uploaded(second)
    assert "host waits" not in said
    assert torch.equal(started(), first + 1)
    assert torch.equal(following(), second + 1)
    assert said.count("host waits") == 2


def test_memory_is_pinned_once_for_each_of_two_slots(said: list[str]) -> None:
    uploaded = Uploaded(lambda x: x + 1, torch.device("cpu"))
    for number in range(6):
        assert torch.equal(
            uploaded(torch.full((2, 3), float(number)))(), torch.full((2, 3), number + 1.0)
        )
    assert said.count("pinned") == 4
    uploaded(torch.zeros(1, 3))()
    assert said.count("pinned") == 6


def overwriting(scale: float) -> Callable[[Tensor], Tensor]:
    """A network whose output lies where the last one's did, as a replayed graph's does."""
    made: dict[torch.Size, Tensor] = {}

    def run(x: Tensor) -> Tensor:
        out = torch.cat((x, x.square(), x.neg()), 1)[:, :3] * scale
        return made.setdefault(out.shape, torch.empty_like(out)).copy_(out)

    return run


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("shape", [PATCH, (19, 9, 30), (3, 8, 20), (40, 20, 8)])
def test_logits_are_those_of_networks_that_are_waited_for(
    shape: tuple[int, ...], batch: int, said: list[str]
) -> None:
    """Of two networks, whose batches follow each other through both slots."""
    volume = noise(1, *shape)

    plain = [overwriting(1.0), overwriting(-0.5)]
    expected, _ = slid(volume, plain, batch=batch)
    uploaded = [Uploaded(run, torch.device("cpu")) for run in plain]
    found, told = slid(volume, uploaded, batch=batch)
    assert torch.equal(found, expected)
    assert told == sorted(told)
    assert said.count("host waits") == said.count("event on network") > 0
