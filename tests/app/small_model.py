"""A tiny exported model with random weights, for tests that need no trained one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from app.model import (
    Member,
    ModelConfig,
    Network,
    Normalization,
    Resampling,
    save_manifest,
)
from app.networks import UNet, build_network
from volumes.files import sha256

ONES, TWOS, THREES = (1, 1, 1), (2, 2, 2), (3, 3, 3)
CT = Normalization("CTNormalization", False, 34.5, 50.25, -130.0, 161.0)
SPACING = (3.0, 1.5, 1.5)

NETWORK = Network(
    name="PlainConvUNet",
    input_channels=1,
    heads=2,
    features=(4, 8),
    kernel_sizes=(THREES, THREES),
    strides=(ONES, TWOS),
    encoder_blocks=(1, 1),
    decoder_convs=(1,),
    conv_bias=True,
    norm_eps=1e-5,
    negative_slope=0.01,
)

CONFIG = ModelConfig(
    name="tiny",
    dataset="Dataset900_Tiny",
    plans="nnUNetPlans",
    configuration="3d_fullres",
    trainer="nnUNetTrainer",
    channels=("CT",),
    labels=("background", "lesion"),
    region_values=None,
    transpose=(0, 1, 2),
    spacing=SPACING,
    patch_size=(8, 16, 16),
    normalization=(CT,),
    resample_data=Resampling("default", 3, None),
    resample_logits=Resampling("default", 1, None),
    mirror_axes=(0, 1, 2),
    dtype="float32",
    network=NETWORK,
    members=(Member("member_0.safetensors", "0" * 64, "random"),),
)


def with_channels(channels: int) -> ModelConfig:
    """CONFIG for a scan of several channels."""
    return replace(
        CONFIG,
        channels=tuple(f"channel {c}" for c in range(channels)),
        normalization=(CT,) * channels,
        network=replace(NETWORK, input_channels=channels),
    )


def random_weights(network: Network, seed: int = 0) -> dict[str, Tensor]:
    """Seeded weights under nnU-Net's names; on noise every head is zero on average."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    built = build_network(network)
    for name, parameter in built.state_dict().items():
        noise = torch.randn(parameter.shape, generator=generator)
        fan_in = max(1, parameter[0].numel())
        norm_scale = name.endswith("norm.weight")
        weights[name] = 1 + 0.1 * noise if norm_scale else noise / fan_in**0.5
    built.load_state_dict(weights, assign=True)
    with torch.inference_mode():
        logits = built(torch.randn((1, network.input_channels, 16, 16, 16), generator=generator))
    head = f"decoder.seg_layers.{len(network.features) - 2}.bias"
    weights[head] = weights[head] - logits.mean((0, 2, 3, 4))
    return weights


def with_weights(network: Network) -> UNet:
    """The network with random weights, as the app runs it."""
    built = build_network(network)
    built.load_state_dict(random_weights(network), assign=True)
    return built.requires_grad_(False)


def write_model(folder: Path, seed: int = 0, members: int = 1, **changes: Any) -> Path:
    """Write CONFIG with ``changes`` and random weights; returns the folder."""
    config = replace(CONFIG, **changes)
    folder.mkdir(parents=True)
    written = []
    for number in range(members):
        file = folder / f"member_{number}.safetensors"
        weights = random_weights(config.network, seed + number)
        dtype = getattr(torch, config.dtype)
        save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, file)
        written.append(Member(file.name, sha256(file), f"random, seed {seed + number}"))
    save_manifest(folder, replace(config, members=tuple(written)))
    return folder
