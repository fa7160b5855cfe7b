"""A trained folder with random weights, to measure what a network takes before it is trained.

nnU-Net's predictor loads it, and `training.export` exports it. nnU-Net is not needed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app.model import Network
from app.networks import build_network
from training.files import Json
from training.plans import label_heads, network, resolve_configuration

Weights = dict[str, Tensor]

FINAL = "checkpoint_final.pth"
_SPREAD = 0.3  # of norms' weights around 1 and of biases around 0


def write_random(folder: Path, plans: Json, dataset: Json, configuration: str) -> None:
    """Write plans.json, dataset.json and fold 0 of one configuration; raises TrainingError."""
    channels = len(dataset.get("channel_names") or dataset["modality"])
    heads = len(label_heads(dataset)[0])
    described = network(resolve_configuration(plans, configuration), channels, heads)
    weights = as_nnunet_stores(random_weights(described, seed=0), described)
    file = folder / "fold_0" / FINAL
    file.parent.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    torch.save(checkpoint(weights, configuration), file)


def random_weights(described: Network, seed: int) -> Weights:
    """Random parameters under the app's names; kernels are scaled as by He, for half precision."""
    draw = torch.Generator().manual_seed(seed)
    weights = {}
    for name, like in build_network(described).state_dict().items():
        values = torch.randn(like.shape, generator=draw)
        if like.ndim > 1:
            weights[name] = values * math.sqrt(2 / like[0].numel())
        else:
            weights[name] = values * _SPREAD + name.endswith("norm.weight")
    return weights


def as_nnunet_stores(weights: Weights, described: Network) -> Weights:
    """The same tensors with nnU-Net's spare names and its heads of deep supervision."""
    named: Weights = {}
    for key, value in weights.items():
        named[key] = value
        for part, number in ((".conv.", 0), (".norm.", 1)):
            if part in key:
                named[key.replace(part, f".all_modules.{number}.")] = value
    named |= {f"decoder.{k}": v for k, v in named.items() if k.startswith("encoder.")}
    for number, features in enumerate(described.features[-2:0:-1]):
        head = f"decoder.seg_layers.{number}"
        named[f"{head}.weight"] = torch.ones(described.heads, features, 1, 1, 1)
        named[f"{head}.bias"] = torch.ones(described.heads)
    return named


def checkpoint(weights: Weights, configuration: str) -> Json:
    """The content of a checkpoint file of nnU-Net's trainer."""
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
    }
