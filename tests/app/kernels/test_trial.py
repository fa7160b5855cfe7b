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


def beside(run: Any, given: list[Any]) -> None:
    run(*given)
    other = given[6]
    torch.as_strided(other, other.shape, other.stride(), 16).fill_(1)


def failing(run: Any, given: list[Any]) -> None:
    raise RuntimeError("an illegal memory access was encountered")


# given: x, weight, bias, eps, slope, residual, second output
WRONG: dict[str, Callable[[Any, list[Any]], None]] = {
    "no slope": lambda run, given: run(*given[:4], None, *given[5:]),
    "no residual": lambda run, given: run(*given[:5], None, given[6]),
    "no second output": lambda run, given: run(*given[:6], None),
    "another weight": lambda run, given: run(given[0], given[1] * 1.05, *given[2:]),
    "another eps": lambda run, given: run(*given[:3], 0.1, *given[4:]),
    "one sample": lambda run, given: run(given[0][:1], *given[1:5], given[5][:1], given[6][:1]),
    "beside the second output": beside,
    "launches that come to nothing": lambda run, given: None,
    "an error": failing,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_that_does_something_else_does_not(name: str, kernel: NormKernel) -> None:
    def call(*given: Tensor) -> None:
        WRONG[name](kernel, list(given))

    assert not works(call, CPU)
