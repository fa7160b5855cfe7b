"""app.memory.live_bytes against a count by hand, and against torch's allocator for CPUs."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from app.loading import set_precision
from app.memory.live_bytes import LiveBytes, peak_of
from app.model import ModelConfig, Network
from app.networks import UNet, build_network
from tests.app.conftest import python
from tests.app.published import DKFZ, HUANG, PUBLISHED
from tests.app.small_model import ONES, THREES, TWOS, with_weights

MIB = 2**20


def two_layers() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 2, 1)).eval()


def test_two_layers_by_hand() -> None:
    """512 voxels: 2 KiB a channel. The caller holds the input as long as the network runs."""
    kib = 1024
    network = two_layers()
    live = 2 * kib + 8 * kib + 4 * kib  # input, hidden, output
    inside = 2 * kib + 8 * kib + 8 * kib  # the first convolution, with its output once more
    inside = max(inside, live + 4 * kib)
    assert peak_of(network, (1, 1, 8, 8, 8)) == (live, inside)
    assert peak_of(network, (3, 1, 8, 8, 8)) == (3 * live, 3 * inside)
    half = two_layers().half()
    live = 2 * kib + 1 * kib + 4 * kib + 2 * kib  # with the input in both precisions
    assert peak_of(lambda x: half(x.half()), (1, 1, 8, 8, 8))[0] == live


def test_what_is_released_does_not_count() -> None:
    tensors: list[Tensor] = []
    with LiveBytes() as count:
        tensors.append(torch.empty(1000))
        view = tensors[0][10:].view(2, -1)
        assert count.live == 4096  # whole blocks of 512 bytes
        del tensors[0]
        assert count.live == 4096
        del view
        assert count.live == 0
        tensors.append(torch.zeros(128).add_(1))
    assert (count.live, count.peak) == (512, 4096)
    tensors.clear()
    assert count.live == 0


def test_inference_mode_hides_nothing() -> None:
    a, b = torch.zeros(100, 64), torch.zeros(64, 100)
    with torch.inference_mode(), LiveBytes() as count:
        finite = torch.isfinite(torch.matmul(a, b))
    assert count.live == finite.nbytes + 240  # 10000 bytes in blocks of 512
    assert count.peak >= 3 * finite.nbytes + 4 * finite.numel()


def allocated(network: UNet, shape: tuple[int, ...]) -> int:
    """Peak of what the CPU allocator holds while a network runs on an input that is held too.

    Between operations: in the midst of convolutions oneDNN copies their input.
    """
    with torch.inference_mode():
        network(torch.zeros(shape))  # what torch keeps for later calls
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as events:
            network(torch.zeros(shape))
    assert events.profiler is not None
    results = events.profiler.kineto_results
    assert results is not None
    live = peak = until = 0
    for event in sorted(results.events(), key=lambda e: e.start_ns()):
        if event.name() == "aten::convolution":
            until = event.end_ns()
        elif event.name() == "[memory]":
            live += event.nbytes()
            if event.start_ns() > until:
                peak = max(peak, live)
    return peak


def half(config: Network) -> UNet:
    network = build_network(config)
    set_precision(network, torch.float16)
    return network


SMALL = {
    "plain": replace(
        HUANG.network, features=(8, 16, 32), kernel_sizes=(THREES,) * 3,
        strides=(ONES, TWOS, (1, 2, 2)), encoder_blocks=(2, 1, 2), decoder_convs=(1, 2),
    ),
    "residual": replace(
        DKFZ.network, features=(8, 16, 32), kernel_sizes=(ONES, (1, 3, 3), THREES),
        strides=(ONES, TWOS, (1, 2, 2)), encoder_blocks=(1, 2, 2), decoder_convs=(2, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_the_allocator_for_cpus_holds_as_much(name: str) -> None:
    shape = (2, 1, 16, 32, 32)
    held = allocated(with_weights(SMALL[name]), shape)
    found, _ = peak_of(build_network(SMALL[name]), shape)
    assert found == pytest.approx(held, rel=0.01)


@pytest.mark.parametrize("name", SMALL)
def test_output_shape_and_dtype_are_those_of_the_network(name: str) -> None:
    network = half(SMALL[name])
    seen: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        seen.append(network(x))
        return seen[-1]

    peak_of(run, (3, 1, 16, 32, 32))
    assert (seen[0].shape, seen[0].dtype) == ((3, 2, 16, 32, 32), torch.float16)


@pytest.mark.parametrize("config", PUBLISHED.values(), ids=PUBLISHED)
def test_more_windows_and_larger_ones_take_more(config: ModelConfig) -> None:
    network = half(config.network)
    z, y, x = config.patch_size
    shapes = [(1, 1, z, y, x), (2, 1, z, y, x), (4, 1, z, y, x), (4, 1, z, y, 2 * x)]
    peaks = [peak_of(network, shape) for shape in shapes]
    for small, large in itertools.pairwise(peaks):
        assert 1.99 * small[0] < large[0] < 2.01 * small[0]
        assert 1.99 * small[1] < large[1] < 2.01 * small[1]


@pytest.mark.parametrize(
    ("name", "live", "with_workspace"), [("5.6M", 342, 416), ("102M", 609, 647)]
)
def test_published_networks(name: str, live: int, with_workspace: int) -> None:
    """Float16, MiB. nnU-Net's decoder keeps every skip to the end, this one lets go of them."""
    config = PUBLISHED[name]
    network = half(replace(config.network, heads=1))
    found = peak_of(lambda x: network(x).float(), (1, 1, *config.patch_size))
    assert [round(n / MIB) for n in found] == [live, with_workspace]


IMPORTS = """
import sys, torch
from app.memory.live_bytes import LiveBytes, peak_of
from app.loading import arrange
from app.networks import build_network
from tests.app.conftest import python
from tests.app.published import PUBLISHED
before = set(sys.modules)
for config in PUBLISHED.values():
    for device in ("cpu", "cuda"):
        network = build_network(config.network)
        with LiveBytes():
            arrange(network, torch.device(device), torch.float16, False)
        peak_of(network, (1, 1, *config.patch_size))
print(len(set(sys.modules) - before), "sympy" in sys.modules)
"""


def test_counting_does_not_import_torchs_compiler() -> None:
    new, sympy = python("-c", IMPORTS).stdout.split()
    assert int(new) < 10
    assert sympy == "False"
