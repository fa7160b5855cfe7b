"""The networks of the two FLARE 2024 papers with random weights: speed does not depend on these."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training import nnunet
from training.export import export
from training.planning import BASE, dataset_json, plans
from training.random_weights import write_random
from training.recipes import Settings, load_recipe


@dataclass(frozen=True)
class Published:
    """One network as its paper gives it. recipe: of training.recipes."""

    name: str
    title: str
    recipe: str

    @cached_property
    def settings(self) -> Settings:
        """Spacing, patch and all that its training needs."""
        return load_recipe(self.recipe).shared


HUANG = Published("huang", "Huang's network, 5.6M parameters", "huang")
DKFZ = Published("dkfz", "DKFZ's network, 101.9M parameters", "dkfz-batch8")
NETWORKS = {network.name: network for network in (HUANG, DKFZ)}


@dataclass(frozen=True)
class Weights:
    """The same weights twice: ``trained`` for nnU-Net, ``model`` for the app."""

    trained: Path
    model: Path


def has_nnunet() -> bool:
    """Whether nnU-Net is installed beside the project (``make oracle``)."""
    return nnunet.PYTHON.exists()


def make_weights(network: Published, folder: Path) -> Weights:
    """Both folders within ``folder``; taken as they are if an earlier call made them alike."""
    home = folder / network.name
    made = Weights(home / "trained", home / "model")
    planned: Any = json.loads(json.dumps(plans(load_recipe(network.recipe), "Dataset001_Lesions")))
    done = home / "plans.json"  # written last
    if done.exists() and json.loads(done.read_text()) == planned:
        return made
    shutil.rmtree(home, ignore_errors=True)
    write_random(made.trained, planned, dataset_json(1), BASE)
    export([made.trained], made.model)
    done.write_text(json.dumps(planned))
    return made
