"""app.kernels.norm: norm.cu itself, run on the host, against float64."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.kernels.norm import NormKernel
from tests.app.kernels.conftest import STREAM

Floats = NDArray[np.float64]
EPS = 1e-5


def channels_last(values: Floats) -> Tensor:
    tensor = torch.from_numpy(values).half()
    return tensor.contiguous(memory_format=torch.channels_last_3d)


def parameters(channels: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    weight, bias = random.normal(1, 0.3, channels), random.normal(0, 0.5, channels)
    return torch.from_numpy(weight).float(), torch.from_numpy(bias).float()


def expected(
    x: Tensor, weight: Tensor, bias: Tensor, slope: float | None, residual: Tensor | None
) -> Floats:
    values = x.double().numpy()
    mean = values.mean(axis=(2, 3, 4), keepdims=True)
    deviation = np.sqrt(values.var(axis=(2, 3, 4), keepdims=True) + np.float32(EPS))
    shape = (1, -1, 1, 1, 1)
    out: Floats = (values - mean) / deviation * weight.double().numpy().reshape(shape)
    out += bias.double().numpy().reshape(shape)
    if residual is not None:
        out += residual.double().numpy()
    return out if slope is None else np.where(out < 0, out * np.float32(slope), out)


def assert_rounded(actual: Tensor, reference: Floats, offset: float = 1.0) -> None:
    """Half a unit in float16's last place, and what float32 loses before that.

    x * scale and shift are each ``offset`` large (mean / deviation) and cancel: a few units in the
    last place of float32 at that size.
    """
    half_unit = np.spacing(np.abs(reference).astype(np.float16)).astype(np.float64) / 2
    error = np.abs(actual.double().numpy() - reference)
    allowed = 1.01 * half_unit + 8 * 2.0**-24 * (offset + np.abs(reference).max())
    assert (error <= allowed).all(), (error - allowed).max()


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("channels", [8, 24, 32, 320, 1024])
@pytest.mark.parametrize("slope", [None, 0.01])
def test_is_the_formula(kernel: NormKernel, samples: int, channels: int, slope: float) -> None:
    random = np.random.default_rng(channels + samples)
    shape = (samples, channels, 5, 7, 11)
    x, residual = (channels_last(random.normal(0.5, 2, shape)) for _ in range(2))
    weight, bias = parameters(channels)
    for added in (None, residual):
        reference = expected(x, weight, bias, slope, added)
        actual = x.clone()
        assert kernel(actual, weight, bias, EPS, slope, added) is actual
        assert_rounded(actual, reference)


def outlier_first() -> Floats:
    values = np.random.default_rng(0).normal(0, 1, (1, 16, 13, 16, 16))
    values[:, :, 0, 0, 0] = 60000
    return values


HARD = {
    "a mean a thousand times the deviation": (
        np.random.default_rng(0).normal(1000, 1, (2, 32, 13, 16, 16)),
        1000 * 2,
    ),
    "an outlier in the first voxel": (outlier_first(), 1),
    "constant channels": (np.full((1, 8, 4, 5, 6), 3.0), 3 / EPS**0.5),
    "one voxel": (np.full((2, 8, 1, 1, 1), 3.0), 3 / EPS**0.5),
}


@pytest.mark.parametrize("name", HARD)
def test_where_digits_could_be_lost(name: str, kernel: NormKernel) -> None:
    values, offset = HARD[name]
    x = channels_last(values)
    weight, bias = parameters(x.shape[1])
    reference = expected(x, weight, bias, 0.01, None)
    assert_rounded(kernel(x, weight, bias, EPS, 0.01), reference, offset)


@pytest.mark.parametrize("half", [0, 1])
def test_also_leaves_the_other_half_alone(kernel: NormKernel, half: int) -> None:
    x = channels_last(np.random.default_rng(0).normal(0, 1, (2, 24, 3, 4, 5)))
    weight, bias = parameters(24)
    both = torch.full((2, 48, 3, 4, 5), 7.0, dtype=torch.float16)
    both = both.contiguous(memory_format=torch.channels_last_3d)
    halves = both[:, :24], both[:, 24:]
    kernel(x, weight, bias, EPS, 0.01, also=halves[half])
    assert torch.equal(halves[half], x)
    assert (halves[1 - half] == 7).all()


def test_same_bits_in_whatever_order_threads_run(kernel: NormKernel, stand_in: ctypes.CDLL) -> None:
    x = channels_last(np.random.default_rng(0).normal(3, 1, (2, 40, 7, 9, 11)))
    weight, bias = parameters(40)
    first = kernel(x.clone(), weight, bias, EPS, 0.01)
    assert torch.equal(first, kernel(x.clone(), weight, bias, EPS, 0.01))
    stand_in.stand_in_order(1)
    try:
        assert torch.equal(first, kernel(x.clone(), weight, bias, EPS, 0.01))
    finally:
        stand_in.stand_in_order(0)


def test_three_launches_on_the_current_stream(kernel: NormKernel, stand_in: ctypes.CDLL) -> None:
    before = stand_in.stand_in_launches()
    kernel(channels_last(np.ones((1, 8, 2, 2, 2))), *parameters(8), EPS, None)
    assert stand_in.stand_in_launches() - before == 3
    assert stand_in.stand_in_stream() == STREAM


def test_fits_whole_loads_of_one_block() -> None:
    fitting = [channels for channels in range(-8, 1100) if NormKernel.fits(channels)]
    assert fitting == list(range(8, 1025, 8))


def ones(channels: int = 8, width: int = 2) -> Tensor:
    return channels_last(np.ones((2, channels, 2, 2, width)))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("x", {"x": ones().float()}),
        ("x", {"x": ones().contiguous()}),
        ("x", {"x": ones(12)}),
        ("weight", {"weight": torch.ones(8).half()}),
        ("bias", {"bias": torch.ones(9)}),
        ("bias", {"bias": torch.ones(16)[::2]}),
        ("residual", {"residual": ones(16)}),
        ("residual", {"residual": ones(16)[:, :8]}),
        ("also", {"also": ones(16)}),
        ("also", {"also": ones().contiguous()}),
        ("also", {"also": ones(12)[:, :8]}),
        ("also", {"also": ones(16)[:, 4:12]}),
        ("also", {"also": ones(width=3)[..., :2]}),
    ],
)
def test_wrong_arguments_are_named(
    kernel: NormKernel, name: str, changed: dict[str, Tensor]
) -> None:
    arguments: dict[str, Any] = {"x": ones(), "weight": torch.ones(8), "bias": torch.ones(8)}
    with pytest.raises(ValueError, match=f"^{name}: "):
        kernel(**(arguments | changed), eps=EPS, negative_slope=None)
