"""app.networks: the published architectures have the published sizes, and give logits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from app.model import Network
from app.networks import (
    InstanceNorm,
    SectionConv,
    SectionUpsampling,
    build_network,
    drop_cancelled_biases,
    fold_two_class_head,
)
from tests.app.published import DKFZ, HUANG
from tests.app.small_model import NETWORK, ONES, THREES, TWOS, with_weights

RESIDUAL, SMALL = DKFZ.network, HUANG.network
DEFAULT = replace(RESIDUAL, name="PlainConvUNet", encoder_blocks=(2,) * 6, decoder_convs=(2,) * 5)
TINY_RESIDUAL = replace(NETWORK, name="ResidualEncoderUNet", encoder_blocks=(1, 2))


def heads_for_deep_supervision(config: Network) -> int:
    """Parameters of nnU-Net's 1x1x1 heads on the decoder's stages but the finest."""
    return sum(config.heads * (features + 1) for features in config.features[1:-1])


# nnU-Net's own count, by dynamic_network_architectures 0.4.4: it has all heads, whether deep
# supervision is on or off, and the published numbers (101.94 M, 5.603 M) count them. The network
# here keeps the last head alone.
@pytest.mark.parametrize(
    ("config", "of_nnunet", "here", "tensors"),
    [
        (RESIDUAL, 101_940_170, 101_938_626, 256),
        (DEFAULT, 30_785_994, 30_784_450, 100),
        (SMALL, 5_602_950, 5_602_562, 64),
    ],
    ids=["residual 101.94M", "default 30.79M", "small 5.603M"],
)
def test_published_sizes(config: Network, of_nnunet: int, here: int, tensors: int) -> None:
    parameters = list(build_network(config).parameters())
    count = sum(p.numel() for p in parameters)
    assert count == here
    assert count + heads_for_deep_supervision(config) == of_nnunet
    assert len(parameters) == tensors


def test_a_new_network_takes_no_memory() -> None:
    network = build_network(RESIDUAL)
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert not network.training


@pytest.mark.parametrize(
    ("config", "patch"),
    [(RESIDUAL, (32, 32, 32)), (SMALL, (16, 32, 24))],
    ids=["residual", "small"],
)
def test_a_published_network_gives_logits(config: Network, patch: tuple[int, ...]) -> None:
    network = build_network(config).to_empty(device="cpu").requires_grad_(False)
    for name, parameter in network.named_parameters():
        # Fast, and enough for finite logits: instance norms rescale whatever comes.
        parameter.fill_(1) if name.endswith("norm.weight") else parameter.uniform_(-0.05, 0.05)
    logits = network(torch.randn((1, 1, *patch)))
    assert logits.shape == (1, 2, *patch)
    assert torch.isfinite(logits).all()
    assert logits.std() > 0


@pytest.mark.parametrize(
    ("config", "patch"),
    [
        (NETWORK, (8, 8, 8)),
        (TINY_RESIDUAL, (8, 8, 8)),
        (replace(NETWORK, strides=(ONES, (1, 2, 2)), kernel_sizes=((1, 3, 3), THREES)), (3, 8, 8)),
        (replace(TINY_RESIDUAL, strides=(ONES, (1, 1, 2)), features=(4, 4)), (3, 5, 8)),
        (replace(NETWORK, strides=(TWOS, TWOS)), (16, 8, 8)),
        (replace(NETWORK, conv_bias=False), (8, 8, 8)),
    ],
)
def test_shapes_of_small_networks(config: Network, patch: tuple[int, int, int]) -> None:
    config = replace(config, input_channels=3, heads=5)
    logits = with_weights(config)(torch.randn(2, 3, *patch))
    finest = tuple(n // s for n, s in zip(patch, config.strides[0], strict=True))
    assert logits.shape == (2, 5, *finest)


@pytest.mark.parametrize("config", [NETWORK, TINY_RESIDUAL])
def test_the_input_is_left_alone(config: Network) -> None:
    x = torch.randn((1, 1, 8, 8, 8))
    before = x.clone()
    network = with_weights(config)
    first = network(x)
    assert torch.equal(x, before)
    assert torch.equal(network(x), first)


@pytest.mark.parametrize("config", [NETWORK, TINY_RESIDUAL])
def test_a_folded_head_gives_the_difference_of_two_classes(config: Network) -> None:
    x = torch.randn((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    network = with_weights(config)
    logits = network(x)
    fold_two_class_head(network)
    difference = network(x)
    assert difference.shape == (1, 1, 16, 16, 16)
    assert network.head.out_channels == 1
    # Four products of order one are summed in another order.
    torch.testing.assert_close(difference, logits[:, 1:] - logits[:, :1], rtol=1e-5, atol=1e-5)
    assert difference.std() > 0.1


def test_residual_and_plain_encoders_have_nnunets_names() -> None:
    plain, residual = build_network(NETWORK).state_dict(), build_network(TINY_RESIDUAL).state_dict()
    assert "encoder.stages.1.0.convs.0.conv.weight" in plain
    assert "encoder.stem.convs.0.norm.bias" in residual
    assert "encoder.stages.1.blocks.0.skip.1.conv.weight" in residual
    assert "encoder.stages.1.blocks.0.skip.1.conv.bias" not in residual
    for names in (plain, residual):
        assert "decoder.transpconvs.0.weight" in names
        assert "decoder.stages.0.convs.0.conv.bias" in names
        assert "decoder.seg_layers.0.weight" in names


@pytest.mark.parametrize("config", [NETWORK, TINY_RESIDUAL])
def test_the_first_convolution_sees_the_scan(config: Network) -> None:
    network = with_weights(config)
    assert network.first.in_channels == config.input_channels
    seen: list[torch.Tensor] = []
    network.first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    volume = torch.randn(1, config.input_channels, 16, 32, 32)
    with torch.inference_mode():
        network(volume)
    assert torch.equal(seen[0], volume)


@pytest.mark.parametrize("config", [NETWORK, TINY_RESIDUAL])
def test_each_convolution_computes_in_the_precision_of_its_weights(config: Network) -> None:
    """bfloat16 but for the first one is closer to float32 than bfloat16 throughout."""
    volume = torch.randn(1, config.input_channels, 16, 32, 32) * 0.01 - 3  # nearly constant: air
    results = []
    for keep in (True, False):
        network = with_weights(config)
        with torch.inference_mode():
            exact = network(volume)
            for module in network.modules():
                if isinstance(module, (torch.nn.Conv3d, torch.nn.ConvTranspose3d)):
                    module.to(torch.float32 if keep and module is network.first else torch.bfloat16)
            results.append(float((network(volume).float() - exact).abs().mean()))
    assert 0 < results[0] < 0.7 * results[1]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instance_norm_in_place_is_that_of_torch(
    samples: int, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(samples)
    x = torch.randn((samples, 5, 6, 7, 8), generator=generator).to(dtype)
    x += 0.2 * torch.arange(samples * 5).view(samples, 5, 1, 1, 1)
    norm = InstanceNorm(5, eps=1e-5, affine=True).requires_grad_(False)
    norm.weight.copy_(torch.rand(5, generator=generator) + 0.5)
    norm.bias.copy_(torch.randn(5, generator=generator))
    expected = F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5)
    given = x.contiguous(memory_format=layout)
    found = norm(given)
    assert found.data_ptr() == given.data_ptr()
    if layout is torch.contiguous_format:
        assert torch.equal(found, expected)
    else:
        epsilon = torch.finfo(dtype).eps
        torch.testing.assert_close(found, expected, rtol=8 * epsilon, atol=8 * epsilon)


@pytest.mark.parametrize("config", [NETWORK, TINY_RESIDUAL])
def test_the_biases_that_are_dropped_did_nothing(config: Network) -> None:
    network, lean = with_weights(config), with_weights(config)
    drop_cancelled_biases(lean)
    x = torch.randn((1, config.input_channels, 16, 32, 32), generator=torch.manual_seed(0))
    expected = network(x)
    assert sum(p.numel() for p in lean.parameters()) < sum(p.numel() for p in network.parameters())
    torch.testing.assert_close(lean(x), expected, rtol=1e-4, atol=1e-4)


def test_two_dimensions_are_torchs_own() -> None:
    """With so many channels torch rounds otherwise in three: bit by bit those of two."""
    flat = replace(
        NETWORK, features=(32, 64), kernel_sizes=((1, 3, 3),) * 2, strides=(ONES, (1, 2, 2))
    )
    layers = list(with_weights(replace(flat, dimensions=2)).modules())
    conv = next(m for m in layers if isinstance(m, SectionConv) and m.out_channels == 64)
    up = next(m for m in layers if isinstance(m, SectionUpsampling))
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((2, 32, 64, 64), generator=generator)
    expected = F.conv2d(x, conv.weight[:, :, 0], conv.bias, stride=2, padding=1)
    assert torch.equal(conv(x[:, :, None])[:, :, 0], expected)
    y, out = torch.randn((2, 64, 9, 9), generator=generator), torch.empty((2, 32, 1, 18, 18))
    up(y[:, :, None], out)
    assert torch.equal(out[:, :, 0], F.conv_transpose2d(y, up.weight[:, :, 0], up.bias, 2))
