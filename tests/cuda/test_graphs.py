"""CUDA's own graphs: replayed on new windows they give what the network gives, bit by bit."""

from __future__ import annotations

import pytest
import torch

from app.channels_last import arrange_channels_last
from app.graphs import CudaCapture, Replayed
from app.loading import set_precision
from app.networks import UNet, build_network
from tests.app.published import PUBLISHED
from tests.app.small_model import random_weights

pytestmark = pytest.mark.cuda


def on_gpu(name: str) -> UNet:
    config = PUBLISHED[name].network
    network = build_network(config)
    network.load_state_dict(random_weights(config), assign=True)
    set_precision(network, torch.float16)
    arrange_channels_last(network)
    return network.requires_grad_(False).to("cuda")


@pytest.mark.parametrize("name", PUBLISHED)
@torch.inference_mode()
def test_replayed_equals_eager(name: str) -> None:
    network, warnings = on_gpu(name), []  # type: tuple[UNet, list[str]]
    replayed = Replayed(network, CudaCapture(), warnings.append)
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((1, 1, *PUBLISHED[name].patch_size), generator=generator).cuda()
        assert torch.equal(replayed(x).clone(), network(x))
    assert warnings == []


@torch.inference_mode()
def test_members_share_memory() -> None:
    """A second network's graph needs its weights and an output, not another window's memory."""
    capture = CudaCapture()
    x = torch.randn((1, 1, *PUBLISHED["5.6M"].patch_size)).cuda()
    held = []
    for _ in range(2):
        replayed = Replayed(on_gpu("5.6M"), capture, pytest.fail)
        for _ in range(3):
            replayed(x)
        held.append((replayed, torch.cuda.memory_reserved()))
    assert held[1][1] - held[0][1] < 100 * 2**20
