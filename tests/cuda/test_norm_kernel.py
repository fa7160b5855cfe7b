"""The norm kernel on a GPU against float64, on every shape that the published networks give it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from app.kernels.load import load_norm_kernel
from app.kernels.norm import NormKernel
from tests.app.published import PUBLISHED

pytestmark = pytest.mark.cuda

EPS = 1e-5
SLOPE = 0.01
DEVICE = torch.device("cuda")


def stages(name: str) -> list[tuple[int, ...]]:
    """Channels and voxels (z, y, x) of each stage of a published network, for one window."""
    config = PUBLISHED[name]
    found: list[tuple[int, ...]] = []
    size: tuple[int, ...] = config.patch_size
    for channels, strides in zip(config.network.features, config.network.strides, strict=True):
        size = tuple(math.ceil(n / s) for n, s in zip(size, strides, strict=True))
        found.append((channels, *size))
    return found


SHAPES = sorted({shape for name in PUBLISHED for shape in stages(name)})


@pytest.fixture(scope="module")
def kernel() -> NormKernel:
    torch.zeros(1, device=DEVICE)  # the context that the kernel is loaded into
    found, phrase = load_norm_kernel(DEVICE)
    assert found is not None, phrase
    return found


def noise(shape: tuple[int, ...], mean: float = 0.5, deviation: float = 1.0) -> Tensor:
    values = torch.randn(shape, device=DEVICE) * deviation + mean
    return values.half().contiguous(memory_format=torch.channels_last_3d)


def parameters(channels: int) -> tuple[Tensor, Tensor]:
    weight = 1 + 0.3 * torch.randn(channels, device=DEVICE)
    return weight, 0.5 * torch.randn(channels, device=DEVICE)


def expected(
    x: Tensor, weight: Tensor, bias: Tensor, slope: float | None, residual: Tensor | None
) -> Tensor:
    values = x.double()
    variance, mean = torch.var_mean(values, (2, 3, 4), correction=0, keepdim=True)
    column = (1, -1, 1, 1, 1)
    out = (values - mean) / (variance + EPS).sqrt() * weight.double().view(column)
    out += bias.double().view(column)
    if residual is not None:
        out += residual.double()
    return out if slope is None else torch.where(out < 0, out * slope, out)


def assert_rounded(actual: Tensor, reference: Tensor, offset: float = 1.0) -> None:
    """Half a unit in float16's last place, and what float32 loses before that.

    x * scale and shift are each ``offset`` large (mean / deviation) and cancel: a few units in the
    last place of float32 at that size.
    """
    # A float16 has 11 significant bits, and below 2**-14 the same unit as there.
    exponent = torch.floor(torch.log2(reference.abs().clamp(min=2.0**-14)))
    allowed = 1.01 * 2 ** (exponent - 11)
    allowed += 8 * 2.0**-24 * (offset + reference.abs().max())
    error = (actual.double() - reference).abs()
    assert bool((error <= allowed).all()), float((error - allowed).max())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("slope", [None, SLOPE])
@pytest.mark.parametrize("adds", [False, True], ids=["plain", "residual"])
def test_is_the_formula(
    kernel: NormKernel, shape: tuple[int, ...], slope: float | None, adds: bool
) -> None:
    x, (weight, bias) = noise((1, *shape)), parameters(shape[0])
    residual = noise((1, *shape)) if adds else None
    reference = expected(x, weight, bias, slope, residual)
    assert kernel(x, weight, bias, EPS, slope, residual) is x
    assert_rounded(x, reference)


def test_mean_a_thousand_times_the_deviation(kernel: NormKernel) -> None:
    """Sums of squares in float32 would lose the variance altogether."""
    x, (weight, bias) = noise((2, 32, 48, 64, 64), mean=1000.0), parameters(32)
    reference = expected(x, weight, bias, None, None)
    assert_rounded(kernel(x, weight, bias, EPS, None), reference, offset=1000 * 2)


@pytest.mark.parametrize("half", [0, 1])
def test_also_leaves_the_other_half_alone(kernel: NormKernel, half: int) -> None:
    x, (weight, bias) = noise((2, 32, 24, 32, 32)), parameters(32)
    both = torch.full((2, 64, 24, 32, 32), 7.0, dtype=torch.float16, device=DEVICE)
    both = both.contiguous(memory_format=torch.channels_last_3d)
    halves = both[:, :32], both[:, 32:]
    kernel(x, weight, bias, EPS, SLOPE, also=halves[half])
    assert torch.equal(halves[half], x)
    assert bool((halves[1 - half] == 7).all())


def test_same_bits_every_time(kernel: NormKernel) -> None:
    x, (weight, bias) = noise((1, 32, 96, 128, 128)), parameters(32)
    first = kernel(x.clone(), weight, bias, EPS, SLOPE)
    for _ in range(5):
        assert torch.equal(first, kernel(x.clone(), weight, bias, EPS, SLOPE))
