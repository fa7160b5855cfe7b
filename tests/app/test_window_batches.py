"""Windows that go through the network in batches, and the steps that change their number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from app.sliding_window import larger_steps, window_count, windows
from tests.app.at_work import PATCH, noise, slid

SHAPES = [PATCH, (19, 9, 30), (3, 8, 20), (40, 20, 8)]


def networks(seen: list[int]) -> list[Callable[[Tensor], Tensor]]:
    """Two that see windows one by one, as instance norm does."""

    def network(scale: float) -> Callable[[Tensor], Tensor]:
        weight = noise(3, 2, 3, 3, 3, seed=1) * scale

        def run(x: Tensor) -> Tensor:
            seen.append(len(x))
            return F.instance_norm(F.conv3d(x, weight, padding=1)) * scale

        return run

    return [network(1.0), network(-0.5)]


@pytest.mark.parametrize("step_size", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_batches_give_what_single_windows_give(shape: tuple[int, ...], step_size: float) -> None:
    volume = noise(2, *shape)

    seen: list[int] = []
    expected, _ = slid(volume, networks(seen), step_size)
    assert set(seen) == {1}
    single = len(seen)
    for batch in (2, 3, 64):
        seen.clear()
        found, told = slid(volume, networks(seen), step_size, batch=batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
        assert max(seen) <= batch
        assert sum(seen) == single
        assert [done for done, _ in told] == torch.tensor(seen).cumsum(0).tolist()
        assert told[-1] == (single, single)


@pytest.mark.parametrize("shape", [*SHAPES, (200, 190, 170), (1, 1, 1)])
@pytest.mark.parametrize("step_size", [0.2, 0.5, 0.77, 1.0])
def test_larger_steps_take_ever_fewer_windows(shape: tuple[int, ...], step_size: float) -> None:
    steps = larger_steps(shape, PATCH, step_size)
    assert steps == sorted(set(steps))
    assert all(step_size < step <= 1 for step in steps)
    counts = [window_count(shape, PATCH, step) for step in (step_size, *steps)]
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] == window_count(shape, PATCH, 1.0)
    for before, step in zip((step_size, *steps), steps, strict=False):
        for part in (0.01, 0.5, 0.99):  # none is left out, and each is the smallest
            between = before + part * (step - before)
            assert window_count(shape, PATCH, between) == window_count(shape, PATCH, before)


def test_window_count() -> None:
    for step_size in (0.3, 0.5, 1.0):
        for shape in ((19, 9, 30), (40, 20, 8)):
            found = window_count(shape, PATCH, step_size)
            assert found == len(list(windows(shape, PATCH, step_size)))
    assert window_count((3, 2, 1), PATCH, 0.5) == 1
