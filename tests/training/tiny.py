"""Small data sets and recipes for the tests of preparation and training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.nnunet_models import Json, smooth_noise, write_scan

SHAPE = (20, 40, 40)  # z, y, x
SPACING = (3.0, 2.0, 2.0)  # mm

# A network that a CPU trains in seconds; the numbers mean nothing.
SETTINGS: Json = {
    "spacing_zyx": [3.0, 2.0, 2.0],
    "patch_zyx": [16, 32, 32],
    "clip": [-900, 619],
    "mean": -52.232,
    "std": 268.799,
    "logits_resampling": "default",
    "network": "PlainConvUNet",
    "features": [8, 16, 32],
    "kernels": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "encoder_blocks": [1, 1, 1],
    "decoder_convs": [1, 1],
    "batch_size": 2,
    "batch_dice": True,
    "epochs": 2,
    "iterations": 8,
    "validation_iterations": 1,
    "initial_lr": 0.02,
    "momentum": 0.9,
    "weight_decay": 3e-5,
    "foreground_oversampling": 0.5,
    "checkpoint_every": 1,
    "seed": 7,
}


def sourced(settings: Json) -> Json:
    return {
        key: {"value": value, "source": "chosen here, because it is a test"}
        for key, value in settings.items()
    }


def recipe_json(**more: Any) -> Json:
    """A complete recipe; ``more`` replaces entries of its settings."""
    return {"title": "A tiny network", "settings": sourced(SETTINGS | more)}


def write_recipe(file: Path, content: Json | None = None) -> Path:
    file.write_text(json.dumps(content or recipe_json()))
    return file


def write_case(
    folder: Path,
    name: str,
    *,
    lesion: bool = True,
    mask: bool = True,
    images: str = "imagesTr",
    labels: str = "labelsTr",
    scan_name: str = "{}_0000",
) -> None:
    """A scan of smooth noise, and a mask with a box in its middle (or nothing) as lesion."""
    voxels = smooth_noise(SHAPE, seed=sum(map(ord, name)))
    lesions = np.zeros(SHAPE, np.uint8)
    if lesion:
        lesions[6:14, 12:28, 12:28] = 1
        voxels += 300.0 * lesions
    for part in (images, labels):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_scan(folder / images / f"{scan_name.format(name)}.nii.gz", voxels, SPACING)
    if mask:
        write_scan(folder / labels / f"{name}.nii.gz", lesions, SPACING, np.uint8)
