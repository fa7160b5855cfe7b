"""The networks of the two FLARE 2024 papers, as this app's config describes them."""

from __future__ import annotations

from dataclasses import replace

from app.model import ModelConfig
from tests.app.small_model import CONFIG
from training.planning import BASE, plans
from training.plans import network, resolve_configuration
from training.recipes import load_recipe


def published(name: str, recipe: str) -> ModelConfig:
    loaded = load_recipe(recipe)
    settings = resolve_configuration(plans(loaded, CONFIG.dataset), BASE)
    return replace(
        CONFIG,
        name=name,
        spacing=loaded.shared.spacing_zyx,
        patch_size=loaded.shared.patch_zyx,
        network=network(settings, 1, 2),
    )


HUANG, DKFZ = published("5.6M", "huang"), published("102M", "dkfz-batch8")
PUBLISHED = {"5.6M": HUANG, "102M": DKFZ}
