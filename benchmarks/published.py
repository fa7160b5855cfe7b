"""The networks of the two FLARE 2024 papers with random weights: speed does not depend on these.

nnU-Net makes the trained folder where it is installed. Where it is not there is nothing to compare
with, and the same folder is written without it.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.nnunet_models import DKFZ_102M, HUANG_5_6M, ORACLE_PYTHON, Json, dataset, plans
from tests.nnunet_models import run_oracle as run_nnunet
from training.export import export

CONFIGURATION = "3d_fullres"
# Huang's published plans; of the other network none are known, and they do not change its speed.
INTENSITIES = {
    "mean": -52.232,
    "std": 268.799,
    "percentile_00_5": -900.0,
    "percentile_99_5": 619.0,
}


@dataclass(frozen=True)
class Published:
    """One network as its paper gives it; axes are z, y, x, spacing is in mm."""

    name: str
    title: str
    spacing: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    architecture: Json
    residual: bool = False

    def plans(self) -> Json:
        """The plans.json that its training started from, as far as inference reads it."""
        own = plans(
            self.spacing, self.patch_size, residual=self.residual, architecture=self.architecture
        )
        properties = own["foreground_intensity_properties_per_channel"]
        properties["0"] = properties["0"] | INTENSITIES  # a new one: plans may share theirs
        return own


HUANG = Published(
    "huang", "Huang's network, 5.6M parameters", (3.0, 2.0, 2.0), (96, 128, 128), HUANG_5_6M
)
DKFZ = Published(
    "dkfz",
    "DKFZ's network, 101.9M parameters",
    (1.0, 0.8, 0.8),
    (96, 160, 160),
    DKFZ_102M,
    residual=True,
)
NETWORKS = {network.name: network for network in (HUANG, DKFZ)}


@dataclass(frozen=True)
class Weights:
    """The same weights twice: ``trained`` for nnU-Net, ``model`` for the app."""

    trained: Path
    model: Path


def has_nnunet() -> bool:
    """Whether nnU-Net is installed beside the project (``make oracle``)."""
    return ORACLE_PYTHON.exists()


def make_weights(network: Published, folder: Path) -> Weights:
    """Both folders within ``folder``; taken as they are if an earlier call made them alike."""
    home = folder / f"{network.name}-{'nnunet' if has_nnunet() else 'alone'}"
    made = Weights(home / "trained", home / "model")
    # Through JSON, as what is compared with has been.
    own = json.loads(json.dumps(network.plans()))
    done = home / "plans.json"  # written last
    if done.exists() and json.loads(done.read_text()) == own:
        return made
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    if has_nnunet():
        train(own, made.trained)
    else:
        _pretend(own, made.trained)
    export([made.trained], made.model)
    done.write_text(json.dumps(own))
    return made


def train(own: Json, trained: Path) -> None:
    """Let nnU-Net write a trained folder; fails with its output."""
    trained.mkdir(parents=True)
    job = {
        "do": "build",
        "folder": str(trained),
        "plans": own,
        "dataset": dataset(),
        "configuration": CONFIGURATION,
        "folds": ["0"],
        "seed": 0,
        "mirror_axes": [0, 1, 2],
    }
    run_nnunet([job], trained.parent)


def _pretend(own: Json, trained: Path) -> None:
    """Write the same without nnU-Net."""
    from tests.training.trained_folder import Weights as Parameters
    from tests.training.trained_folder import write_trained
    from training.plans import network, resolve_configuration

    def tame(parameters: Parameters) -> None:
        """He's scale: sums of so many products would otherwise leave half precision."""
        for values in parameters.values():
            if values.ndim > 1:
                values *= math.sqrt(2 / values[0].numel())

    described = network(resolve_configuration(own, CONFIGURATION), 1, 2)
    write_trained(trained, own, dataset(), network=described, change=tame)
