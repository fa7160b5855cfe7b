"""A norm kernel tried out before it is used: a few voxels, against float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_SHAPE = (2, 16, 3, 5, 7)
_EPS, _SLOPE = 1e-5, 0.01
_TOLERANCE = 0.01  # float16 rounds values of up to 8 by 0.004


def works(kernel: Callable[..., object], device: torch.device) -> bool:
    """Whether a NormKernel launches on ``device`` and gives what it should, wherever it writes."""
    x, residual = _wave(0.37) * 2 + 1, _wave(0.11)
    weight, bias = torch.linspace(0.5, 1.5, _SHAPE[1]), torch.linspace(-1, 1, _SHAPE[1])
    expected = _expected(x, weight, bias, residual)
    try:
        there = x.to(device)
        joint = torch.zeros((2, 32, 3, 5, 7), dtype=torch.float16, device=device)
        joint = joint.contiguous(memory_format=torch.channels_last_3d)
        first = joint[:, :16]
        given = weight.to(device), bias.to(device)
        kernel(there, *given, _EPS, _SLOPE, residual.to(device), first)
        made, also, beside = there.cpu(), first.cpu(), joint[:, 16:].cpu()
    except (RuntimeError, ValueError):
        return False
    close = (made.double() - expected).abs().max() <= _TOLERANCE
    return bool(close and torch.equal(made, also) and not beside.any())


def _wave(step: float) -> Tensor:
    """Values between -1 and 1, float16, of which no two neighbours are alike."""
    count = torch.Size(_SHAPE).numel()
    values = torch.sin(torch.arange(count) * step).reshape(_SHAPE).half()
    return values.contiguous(memory_format=torch.channels_last_3d)


def _expected(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    values, axes, channels = x.double(), (2, 3, 4), (1, -1, 1, 1, 1)
    mean = values.mean(axes, keepdim=True)
    variance = values.var(axes, unbiased=False, keepdim=True)
    normalised = (values - mean) / torch.sqrt(variance + _EPS)
    made = normalised * weight.double().view(channels) + bias.double().view(channels)
    return torch.nn.functional.leaky_relu(made + residual.double(), _SLOPE)
