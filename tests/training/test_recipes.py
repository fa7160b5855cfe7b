from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.model import ModelConfig
from app.networks import build_network
from tests.nnunet_models import Json, dataset
from tests.training.tiny import SETTINGS, recipe_json, sourced, write_recipe
from tests.training.trained_folder import put
from training.errors import TrainingError
from training.planning import plans, preprocessing
from training.plans import model_config
from training.recipes import Settings, describe, load_recipe, main, shipped

PARAMETERS = {  # millions; published but for cpu-small
    "dkfz-batch8": 101.94,
    "dkfz-batch8:plain": 30.79,
    "dkfz-ensemble": 101.94,
    "dkfz-ensemble:plain": 30.79,
    "huang": 5.60,
    "gpu-20min": 5.60,
    "cpu-small": 4.14,
}


def configs(named: str, folder: Path) -> list[ModelConfig]:
    """What the export makes of each member's plans."""
    recipe = load_recipe(named)
    (folder / "plans.json").write_text(json.dumps(plans(recipe, "Dataset001_Lesions")))
    (folder / "dataset.json").write_text(json.dumps(dataset()))
    return [
        model_config(folder, m.configuration, "nnUNetTrainer", (0, 1, 2), "float32")
        for m in recipe.members
    ]


def test_all_recipes_are_counted() -> None:
    assert {name.partition(":")[0] for name in PARAMETERS} == set(shipped())


@pytest.mark.parametrize("named", PARAMETERS)
def test_networks_have_the_published_number_of_parameters(named: str, tmp_path: Path) -> None:
    for config in configs(named, tmp_path):
        network = config.network
        count = sum(p.numel() for p in build_network(network).parameters())
        # the heads of deep supervision, which training has and inference has not
        count += sum((features + 1) * network.heads for features in network.features[1:-1])
        assert round(count / 1e6, 2) == PARAMETERS[named]


@pytest.mark.parametrize("named", PARAMETERS)
def test_every_number_has_a_source(named: str) -> None:
    allowed = re.compile(
        r".*(paper, (\d|Table)|nnU-Net 2\.8\.1's default|chosen here, because"
        r"|the author's published plans|the plans that Huang published)"
    )
    for member in load_recipe(named).members:
        assert member.sources.keys() == {f.name for f in dataclasses.fields(Settings)}
        for key, source in member.sources.items():
            assert allowed.match(source), f"{key}: {source}"


NORMALIZATIONS = {"dkfz": (-900.0, 619.0, -52.2, 268.8), "huang": (-900.0, 619.0, -52.232, 268.799)}


def normalization(config: ModelConfig) -> tuple[float | None, ...]:
    (norm,) = config.normalization
    return norm.percentile_00_5, norm.percentile_99_5, norm.mean, norm.std


def test_dkfz_as_published(tmp_path: Path) -> None:
    recipe = load_recipe("dkfz-ensemble")
    schedules = [
        (s.batch_size, s.epochs, s.initial_lr) for s in (m.settings for m in recipe.members)
    ]
    assert schedules == [(4, 1000, 1e-2), (8, 1000, 1e-2)]
    one, other = configs("dkfz-ensemble", tmp_path)
    assert (one.spacing, one.patch_size) == ((1.0, 0.8, 0.8), (96, 160, 160))
    assert normalization(one) == NORMALIZATIONS["dkfz"]
    assert (one.resample_logits.function, one.resample_data.function) == ("torch", "default")
    assert dataclasses.replace(one, configuration=other.configuration) == other
    (single,) = load_recipe("dkfz-batch8").members
    assert single.settings == recipe.members[1].settings


def test_huang_as_published(tmp_path: Path) -> None:
    settings = load_recipe("huang").shared
    assert (settings.batch_size, settings.epochs, settings.initial_lr) == (2, 2000, 1e-3)
    (config,) = configs("huang", tmp_path)
    assert (config.spacing, config.patch_size) == ((3.0, 2.0, 2.0), (96, 128, 128))
    assert len(config.network.features) == 4
    assert normalization(config) == NORMALIZATIONS["huang"]


def test_a_reading_replaces_the_network_alone() -> None:
    table, text = (load_recipe(f"dkfz-batch8{r}").shared for r in ("", ":plain"))
    differing = {
        f.name
        for f in dataclasses.fields(Settings)
        if getattr(table, f.name) != getattr(text, f.name)
    }
    assert differing == {"network", "encoder_blocks", "decoder_convs"}
    assert load_recipe("dkfz-batch8").readings == ("plain",)
    assert load_recipe("dkfz-batch8:plain").name == "dkfz-batch8-plain"


def test_the_20_minutes_train_on_what_was_prepared_for_huang() -> None:
    ours, theirs = (
        preprocessing(plans(load_recipe(name), "Dataset001_Lesions"))
        for name in ("gpu-20min", "huang")
    )
    assert ours == theirs


def test_the_schedule_is_in_the_plans() -> None:
    planned = plans(load_recipe("dkfz-ensemble"), "Dataset001_Lesions")
    four, eight = (planned["configurations"][f"3d_fullres_batch{n}"] for n in (4, 8))
    assert (four["batch_size"], eight["batch_size"]) == (4, 8)
    assert four["inherits_from"] == "3d_fullres"
    assert four["training"]["epochs"] == 1000
    assert "batch_size" not in four["training"]


def test_a_file_is_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path / "mine.json")))
    assert recipe.name == "mine"
    assert recipe.shared.patch_zyx == (16, 32, 32)
    assert recipe.members[0].configuration == "3d_fullres"


def test_what_a_recipe_is_based_on_fills_in_the_rest(tmp_path: Path) -> None:
    content = {"title": "Mine", "based_on": "huang", "settings": sourced({"epochs": 3})}
    recipe = load_recipe(str(write_recipe(tmp_path / "mine.json", content)))
    assert recipe.shared == dataclasses.replace(load_recipe("huang").shared, epochs=3)
    assert recipe.title == "Mine"


# Of one setting: its value, and what is said of it.
WRONG: list[tuple[str, Any, str]] = [
    ("std", "3", "Expected `float`, got `str`"),
    ("epochs", 1.5, "Expected `int`, got `float`"),
    ("batch_dice", 1, "Expected `bool`, got `int`"),
    ("patch_zyx", [16, 32], "Expected `array` of length 3"),
    ("features", [8, "x", 32], "Expected `int`, got `str`"),
    ("features", [8], "Expected `array` of length >= 2"),
    ("epochs", 0, "Expected `int` >= 1"),
    ("spacing_zyx", [3, -2, 2], "Expected `float` > 0.0"),
    ("network", "SwinUNETR", "Invalid enum value 'SwinUNETR'"),
    ("logits_resampling", "no", "Invalid enum value 'no'"),
    ("momentum", 1.0, "Expected `float` < 1.0"),
    ("weight_decay", -1e-5, "Expected `float` >= 0.0"),
    ("foreground_oversampling", 33, "Expected `float` <= 1.0"),
    ("seed", 2**32, "Expected `int` <= 4294967295"),
]
RULES: list[tuple[str, Any, str]] = [
    ("clip", [619, -900], "clip has the lower bound first"),
    ("mean", 700, "mean is between the bounds of clip"),
    ("encoder_blocks", [2, 2], "one entry for each of features"),
    ("decoder_convs", [2, 2, 2], "one entry less than features"),
    ("kernels", [[3, 3, 2]] * 3, "kernels are odd"),
    ("patch_zyx", [16, 30, 32], "divisible by the product of the strides"),
]
OF_STD = "settings/std"
BROKEN: dict[str, tuple[Json, str]] = {
    "unknown key": (recipe_json() | {"epochs": 3}, "unknown field `epochs`"),
    "unknown setting": (put(recipe_json(), "settings/lr", {}), "`lr` - at `$.settings`"),
    "missing setting": (
        {"title": "x", "settings": sourced({k: v for k, v in SETTINGS.items() if k != "std"})},
        "settings lack std; add each with its source",
    ),
    "no title": ({"settings": sourced(SETTINGS)}, "missing required field `title`"),
    "no source": (
        put(recipe_json(), OF_STD, {"value": 1.0}),
        "field `source` - at `$.settings.std`",
    ),
    "empty source": (put(recipe_json(), f"{OF_STD}/source", " "), "at `$.settings.std.source`"),
    "no object": (put(recipe_json(), OF_STD, 3.0), "got `float` - at `$.settings.std`"),
    "not finite": (put(recipe_json(), f"{OF_STD}/value", float("nan")), "JSON is malformed"),
    "base": ({"title": "x", "based_on": "nothing"}, "is missing; give a recipe's name"),
    "base of a base": ({"title": "x", "based_on": "gpu-20min"}, "based on another"),
    "notes": (recipe_json() | {"notes": "x"}, "Expected `array`, got `str` - at `$.notes`"),
    "members differ": (
        recipe_json() | {"members": {"a": {}, "b": sourced({"std": 2.0})}},
        "member b has another std than a",
    ),
    **{
        f"{key} = {value}": (put(recipe_json(), f"settings/{key}/value", value), expected)
        for key, value, expected in [
            *((key, value, f"{said} - at `$.settings.{key}.value") for key, value, said in WRONG),
            *((key, value, f"{said}; correct the recipe") for key, value, said in RULES),
        ]
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_recipe_is_one_line(name: str, tmp_path: Path) -> None:
    content, expected = BROKEN[name]
    file = write_recipe(tmp_path / "broken.json", content)
    with pytest.raises(TrainingError) as caught:
        load_recipe(str(file))
    message = str(caught.value)
    assert expected in message
    assert message.count("\n") == 0
    assert ".json: " in message


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such recipe; choose one of cpu-small, dkfz"):
        load_recipe("dkfz")
    with pytest.raises(TrainingError, match="has no reading 'table', only plain"):
        load_recipe("dkfz-batch8:table")
    with pytest.raises(TrainingError, match="is missing"):
        load_recipe(str(tmp_path / "no.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(
        TrainingError, match=r"bad\.json: Input data was truncated; correct the recipe"
    ):
        load_recipe(str(tmp_path / "bad.json"))


def test_the_command_line_lists_and_describes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "huang" in capsys.readouterr().out
    assert main(["dkfz-ensemble"]) == 0
    told = capsys.readouterr().out
    assert "| epochs | 1000 | paper, Table 2 |" in told
    assert "`dkfz-ensemble:plain`" in told
    assert told.count("| batch_size |") == 2
    assert told.count("| epochs |") == 1
    assert main(["nothing"]) == 1
    assert capsys.readouterr().err.startswith("error: nothing: no such recipe")


def test_describing_shows_every_setting() -> None:
    told = describe(load_recipe("huang"))
    assert all(f"| {f.name} |" in told for f in dataclasses.fields(Settings))
