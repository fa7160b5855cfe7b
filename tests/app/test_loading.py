"""app.loading: what is left out of a network, and what never is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from app import loading
from app.loading import compute_dtype, load_network
from app.model import Model, load_model
from tests.app.small_model import write_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return load_model(write_model(tmp_path / "model"))


def test_exact_keeps_all_as_nnunet_has_it(model: Model) -> None:
    network = load_network(model, model.config.members[0], CPU, exact=True, one_channel=False)
    assert network.first.bias is not None
    assert all(p.dtype is torch.float32 and p.is_contiguous() for p in network.parameters())
    assert network.head.out_channels == model.config.network.heads


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_otherwise_it_is_lean(
    model: Model, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: True)
    network = load_network(model, model.config.members[0], device, exact=False, one_channel=True)
    assert network.first.bias is None
    assert len(network.head.weight) == 1
    assert network.head.bias is not None
    together = [
        p.is_contiguous(memory_format=torch.channels_last_3d)
        for p in network.parameters()
        if p.ndim == 5
    ]
    assert all(together)
    # A scan in bfloat16 would be rounded too much; half precision has three bits more.
    assert network.first.weight.dtype is (torch.float32 if device is CPU else torch.float16)
    assert network.head.weight.dtype is (torch.bfloat16 if device is CPU else torch.float16)


@pytest.mark.parametrize(
    ("device", "exact", "bfloat16", "expected"),
    [
        (CUDA, False, False, torch.float16),
        (CUDA, True, False, torch.float16),
        (CPU, False, True, torch.bfloat16),
        (CPU, False, False, torch.float32),
        (CPU, True, True, torch.float32),
    ],
)
def test_precision(
    device: torch.device,
    exact: bool,
    bfloat16: bool,
    expected: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: bfloat16)
    assert compute_dtype(device, exact) is expected
