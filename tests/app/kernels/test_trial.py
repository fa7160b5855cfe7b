"""app.kernels.trial: the real kernel passes, on the host, and one that does anything else fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from app.kernels.norm import NormKernel
from app.kernels.trial import works

CPU = torch.device("cpu")


def test_the_kernel_itself_works(kernel: NormKernel) -> None:
    assert works(kernel, CPU)


def no_slope(run: Any, given: list[Any]) -> None:
    run(*given[:4], None, *given[5:])


def no_residual(run: Any, given: list[Any]) -> None:
    run(*given[:5], None, given[6])


def no_second_output(run: Any, given: list[Any]) -> None:
    run(*given[:6], None)


def other_weight(run: Any, given: list[Any]) -> None:
    run(given[0], given[1] * 1.05, *given[2:])


def other_eps(run: Any, given: list[Any]) -> None:
    run(*given[:3], 0.1, *given[4:])


def one_sample(run: Any, given: list[Any]) -> None:
    run(given[0][:1], *given[1:5], given[5][:1], given[6][:1])


def beside(run: Any, given: list[Any]) -> None:
    run(*given)
    other = given[6]
    torch.as_strided(other, other.shape, other.stride(), 16).fill_(1)


def nothing(run: Any, given: list[Any]) -> None:
    """Launches that come to nothing."""


def failing(run: Any, given: list[Any]) -> None:
    raise RuntimeError("an illegal memory access was encountered")


@pytest.mark.parametrize(
    "wrong",
    [
        no_slope,
        no_residual,
        no_second_output,
        other_weight,
        other_eps,
        one_sample,
        beside,
        nothing,
        failing,
    ],
)
def test_a_kernel_that_does_something_else_does_not(
    wrong: Callable[[Any, list[Any]], None], kernel: NormKernel
) -> None:
    def call(*given: Tensor) -> None:
        wrong(kernel, list(given))

    assert not works(call, CPU)
