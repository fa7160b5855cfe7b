"""app.channels_last: the same logits, and nothing that leaves the layout on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from app.channels_last import PoolTogether, arrange_channels_last
from app.layout import LAST, lay_together
from app.memory.live_bytes import peak_of
from app.model import Network
from app.networks import AvgPool, InstanceNorm, build_network
from tests.app.published import PUBLISHED
from tests.app.small_model import NETWORK, ONES, THREES, TWOS, with_weights

PLAIN = replace(
    NETWORK,
    features=(8, 16, 24),
    kernel_sizes=(ONES, (1, 3, 3), THREES),
    strides=(ONES, (1, 2, 2), TWOS),
    encoder_blocks=(2, 1, 2),
    decoder_convs=(2, 1),
    heads=3,
)
FLAT = replace(
    PLAIN,
    kernel_sizes=(ONES, (1, 3, 3), (1, 3, 3)),
    strides=(ONES, (1, 2, 2), (1, 2, 2)),
    dimensions=2,
)
NETWORKS = {
    "plain": PLAIN,
    "two dimensions": FLAT,
    "two dimensions, residual": replace(FLAT, name="ResidualEncoderUNet"),
    "without biases": replace(PLAIN, conv_bias=False),
    "two channels": replace(PLAIN, input_channels=2, kernel_sizes=(THREES,) * 3),
    "residual": replace(PLAIN, name="ResidualEncoderUNet"),
    "residual, pooled without projection": replace(
        PLAIN, name="ResidualEncoderUNet", features=(8, 8, 8), encoder_blocks=(1, 2, 3)
    ),
    "uneven strides": replace(PLAIN, name="ResidualEncoderUNet", strides=(ONES, (2, 1, 2), TWOS)),
}


def windows(config: Network, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    depth = 1 if config.dimensions == 2 else 12
    return torch.randn((count, config.input_channels, depth, 16, 16), generator=generator)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_the_same(name: str, count: int) -> None:
    """In float32, where another order of sums shows in the last bits only."""
    network = with_weights(NETWORKS[name])
    x = windows(NETWORKS[name], count)
    with torch.inference_mode():
        expected = network(x)
        arrange_channels_last(network)
        found = network(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_leaves_the_layout(name: str) -> None:
    """Every input and output of a layer has its channels side by side: nothing has to copy them."""
    network = with_weights(NETWORKS[name])
    arrange_channels_last(network)
    seen: list[tuple[str, Tensor]] = []

    def look(layer: nn.Module, given: tuple[object, ...], made: object) -> None:
        tensors = [t for t in (*given, made) if isinstance(t, Tensor)]
        seen.extend((type(layer).__name__, t) for t in tensors)

    for layer in network.encoder.encoder.modules():  # type: ignore[union-attr]
        if not list(layer.children()):
            layer.register_forward_hook(look)
    for layer in network.decoder.modules():
        if not list(layer.children()):
            layer.register_forward_hook(look)
    with torch.inference_mode():
        network(windows(NETWORKS[name], 2))
    assert len(seen) > 10
    assert [name for name, x in seen if x.stride(1) != 1] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fused_norm_is_given_what_it_needs(name: str) -> None:
    """Channels last, the residual likewise, and half of a joint whose voxels lie twice as far."""
    network = with_weights(NETWORKS[name])
    x = windows(NETWORKS[name], 1)
    arrange_channels_last(network)
    with torch.inference_mode():
        expected = network(x)
    plain = InstanceNorm.forward
    joints = 0

    def fused(norm: InstanceNorm):  # type: ignore[no-untyped-def]
        def run(
            x: Tensor,
            weight: Tensor,
            bias: Tensor,
            eps: float,
            slope: float | None,
            residual: Tensor | None,
            also: Tensor | None,
        ) -> Tensor:
            nonlocal joints
            assert weight is norm.weight
            assert bias is norm.bias
            assert eps == norm.eps
            assert x.is_contiguous(memory_format=LAST)
            assert residual is None or residual.stride() == x.stride()
            if also is not None:
                joints += 1
                assert also.stride(1) == 1
                assert also.stride(4) == 2 * x.stride(4)
            kept, norm.fused = norm.fused, None
            made = plain(norm, x, slope, residual)
            norm.fused = kept
            if also is not None:
                also.copy_(made)
            return made

        return run

    for module in network.modules():
        if isinstance(module, InstanceNorm):
            module.fused = fused(module)
    with torch.inference_mode():
        found = network(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    assert joints == len(NETWORKS[name].features) - 1


@pytest.mark.parametrize("box", [(2, 2, 2), (1, 2, 2), (3, 1, 2)])
def test_pooling(box: tuple[int, int, int]) -> None:
    x = torch.randn(2, 5, 7, 8, 9).contiguous(memory_format=LAST)
    torch.testing.assert_close(PoolTogether(box)(x), AvgPool(box, box)(x))


def test_a_single_channel_says_channels_last() -> None:
    x = torch.randn(2, 1, 4, 5, 6)
    found = lay_together(x, torch.float16)
    assert found.stride() == (120, 1, 30, 6, 1)
    assert torch.equal(found, x.half())
    assert lay_together(found, torch.float16) is found


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_takes_hardly_more_memory(name: str) -> None:
    config = PUBLISHED[name]
    peaks = []
    for arrange in (False, True):
        network = build_network(replace(config.network, heads=1)).half()
        if arrange:
            arrange_channels_last(network)
        peaks.append(peak_of(network, (1, 1, *config.patch_size))[0])
    assert peaks[1] < 1.01 * peaks[0]  # a window in the layout of the first convolution
