"""A trained folder as nnU-Net's trainer leaves it, written without nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from app.model import Network
from tests.nnunet_models import Json, dataset, plans
from training.random_weights import (
    FINAL,
    Weights,
    as_nnunet_stores,
    checkpoint,
    random_weights,
)

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


def write_trained(
    folder: Path,
    plans_json: Json | None = None,
    dataset_json: Json | None = None,
    folds: Sequence[str] = ("0",),
    network: Network = NETWORK,
    seed: int = 0,
    name: str = FINAL,
    configuration: str = "3d_fullres",
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
        content = checkpoint(as_nnunet_stores(weights, network), configuration)
        torch.save(content | more, file)
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
