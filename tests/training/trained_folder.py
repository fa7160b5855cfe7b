"""A trained folder as nnU-Net's trainer leaves it, written without nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.model import Network
from app.networks import build_network
from tests.nnunet_models import Json, dataset, plans

Weights = dict[str, Tensor]
FINAL = "checkpoint_final.pth"

# The network of ``tests.nnunet_models.plans()``, spelled out.
NETWORK = Network(
    name="PlainConvUNet",
    input_channels=1,
    heads=2,
    features=(6, 12, 24),
    kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    encoder_blocks=(2, 2, 2),
    decoder_convs=(1, 2),
    conv_bias=True,
    norm_eps=1e-5,
    negative_slope=0.01,
)


def random_weights(network: Network = NETWORK, seed: int = 0) -> Weights:
    """Random parameters under the app's names."""
    draw = torch.Generator().manual_seed(seed)
    state = build_network(network).state_dict()
    return {k: torch.randn(v.shape, generator=draw) for k, v in state.items()}


def as_nnunet_stores(weights: Weights, network: Network = NETWORK) -> Weights:
    """The same tensors with nnU-Net's spare names and its heads of deep supervision."""
    named: Weights = {}
    for key, value in weights.items():
        named[key] = value
        for part, number in ((".conv.", 0), (".norm.", 1)):
            if part in key:
                named[key.replace(part, f".all_modules.{number}.")] = value
    named |= {f"decoder.{k}": v for k, v in named.items() if k.startswith("encoder.")}
    for number, features in enumerate(network.features[-2:0:-1]):
        head = f"decoder.seg_layers.{number}"
        named[f"{head}.weight"] = torch.ones(network.heads, features, 1, 1, 1)
        named[f"{head}.bias"] = torch.ones(network.heads)
    return named


def checkpoint(weights: Weights, configuration: str = "3d_fullres", **more: Any) -> Json:
    """The content of a checkpoint file; ``more`` replaces entries."""
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "grad_scaler_state": None,
        "logging": {
            "mean_fg_dice": [np.float64(0.5)],
            "ema_fg_dice": [np.float32(0.5)],
            "dice_per_class_or_region": [[np.float32(0.25)]],
            "lrs": [0.01],
        },
        "_best_ema": np.float32(0.5),
        "current_epoch": 7,
        "init_args": {
            "configuration": configuration,
            "fold": 0,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **more,
    }


def write_trained(
    folder: Path,
    plans_json: Json | None = None,
    dataset_json: Json | None = None,
    folds: Sequence[str] = ("0",),
    network: Network = NETWORK,
    seed: int = 0,
    name: str = FINAL,
    change: Callable[[Weights], None] = lambda weights: None,
    **more: Any,
) -> list[Weights]:
    """Write plans, dataset and a checkpoint per fold; returns each fold's parameters.

    Fold number i of ``folds`` has the weights of ``seed`` + i, after ``change``; ``more`` replaces
    entries of the checkpoints.
    """
    folder.mkdir(exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans_json or plans()))
    (folder / "dataset.json").write_text(json.dumps(dataset_json or dataset()))
    written = []
    for number, fold in enumerate(folds):
        weights = random_weights(network, seed + number)
        change(weights)
        file = folder / f"fold_{fold}" / name
        file.parent.mkdir(exist_ok=True)
        torch.save(checkpoint(as_nnunet_stores(weights, network), **more), file)
        written.append(weights)
    return written


def put(content: Json, path: str, value: Any) -> Json:
    """A deep copy of ``content`` with the entry at ``path`` (a/b/c) replaced."""
    copy: Json = json.loads(json.dumps(content))
    *parents, last = path.split("/")
    target = copy
    for parent in parents:
        target = target[parent]
    target[last] = value
    return copy
