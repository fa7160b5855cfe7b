"""The published trainings as data: ``recipes/*.json``, one system each, each number sourced.

A recipe is named on a command line by a shipped name or by a path, with ``:READING`` behind it
where a paper can be read in two ways. ``python -m training.recipes`` lists them, with a recipe it
prints its numbers and where they come from.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from evaluation.tables.markup import plain
from training.errors import TrainingError, exit_code
from volumes import VERSION

SHIPPED = Path(__file__).resolve().parent / "recipes"
NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
RESAMPLERS = ("default", "torch")

Triple = tuple[int, int, int]
Json = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Every number that one training needs; axes are z, y, x."""

    spacing_zyx: tuple[float, float, float]  # mm
    patch_zyx: Triple  # voxels
    clip: tuple[float, float]  # HU
    mean: float  # HU, subtracted after clipping
    std: float  # HU, divided by
    logits_resampling: str  # nnU-Net's default, or torch's linear interpolation
    network: str
    features: tuple[int, ...]  # of each stage, finest first
    kernels: tuple[Triple, ...]
    strides: tuple[Triple, ...]
    encoder_blocks: tuple[int, ...]  # convolutions (PlainConvUNet) or residual blocks
    decoder_convs: tuple[int, ...]  # one entry less than stages, coarsest first
    batch_size: int
    batch_dice: bool  # Dice over the batch as one volume, not of each patch
    epochs: int
    iterations: int  # of an epoch
    validation_iterations: int  # of an epoch
    initial_lr: float
    momentum: float
    weight_decay: float
    foreground_oversampling: float  # share of a batch that is forced to show a lesion
    checkpoint_every: int  # epochs
    seed: int


# What may differ between the members of an ensemble: they share data, network and preprocessing.
OF_A_MEMBER = (
    "batch_size",
    "batch_dice",
    "epochs",
    "iterations",
    "validation_iterations",
    "initial_lr",
    "momentum",
    "weight_decay",
    "foreground_oversampling",
    "checkpoint_every",
    "seed",
)


@dataclass(frozen=True)
class Member:
    """One training of a recipe; its name is empty where the recipe has no other."""

    name: str
    settings: Settings
    sources: Mapping[str, str]  # where each setting comes from

    @property
    def configuration(self) -> str:
        """What nnU-Net calls it."""
        return f"3d_fullres_{self.name}" if self.name else "3d_fullres"


@dataclass(frozen=True)
class Recipe:
    """One system: a training, or several whose models become one ensemble."""

    name: str
    title: str
    paper: str
    notes: tuple[str, ...]
    readings: tuple[str, ...]  # by which name each can be chosen
    members: tuple[Member, ...]

    @property
    def shared(self) -> Settings:
        """Where all members agree, any of them will do: data, preprocessing and network."""
        return self.members[0].settings


def load_recipe(named: str) -> Recipe:
    """The recipe NAME, NAME:READING, FILE.json or FILE.json:READING; raises TrainingError."""
    stem, _, reading = named.partition(":")
    file = Path(stem) if stem.endswith(".json") else SHIPPED / f"{stem}.json"
    if file.parent == SHIPPED and not file.exists():
        raise TrainingError(
            f"{stem}: no such recipe; choose one of {', '.join(shipped())}, or give a .json file"
        )
    content = _inherited(file)
    readings = _mapping(file, content, "readings")
    title, settings = _text(file, content, "title"), _mapping(file, content, "settings")
    notes = content.get("notes", [])
    if not isinstance(notes, list):
        raise TrainingError(f"{file}: notes is {json.dumps(notes)}; expected a list of texts")
    if reading:
        if reading not in readings:
            known = ", ".join(readings) or "none"
            raise TrainingError(f"{file}: has no reading {reading!r}, only {known}")
        other = _mapping(file, readings, reading)
        _only(file, f"readings.{reading}", other, ("title", "settings"))
        title += f"; {_text(file, other, 'title')}"
        settings = settings | _mapping(file, other, "settings")
    members = _mapping(file, content, "members") or {"": {}}
    recipe = Recipe(
        name=file.stem + (f"-{reading}" if reading else ""),
        title=title,
        paper=_text(file, content, "paper") if "paper" in content else "",
        notes=tuple(str(note) for note in notes),
        readings=() if reading else tuple(readings),
        members=tuple(
            _member(file, name, settings | _mapping(file, members, name)) for name in members
        ),
    )
    _refuse_difference(file, recipe)
    return recipe


def shipped() -> list[str]:
    """The names of the recipes that come with the project."""
    return sorted(file.stem for file in SHIPPED.glob("*.json"))


def _inherited(file: Path) -> Json:
    """A recipe's content; what it is based on fills in what it leaves out."""
    content = _read(file)
    known = ("title", "paper", "based_on", "notes", "settings", "readings", "members")
    _only(file, "the recipe", content, known)
    if "based_on" not in content:
        return content
    base_file = SHIPPED / f"{_text(file, content, 'based_on')}.json"
    base = _read(base_file)
    if "based_on" in base:
        raise TrainingError(
            f"{file}: is based on {base_file.stem}, which is based on another; name that one"
        )
    settings = _mapping(file, base, "settings") | _mapping(file, content, "settings")
    notes = [*content.get("notes", ()), *base.get("notes", ())]
    return base | content | {"settings": settings, "notes": notes}


def _member(file: Path, name: str, given: Json) -> Member:
    hints = get_type_hints(Settings)
    _only(file, "settings", given, tuple(hints))
    missing = [key for key in hints if key not in given]
    if missing:
        raise TrainingError(f"{file}: settings lack {', '.join(missing)}; add each with its source")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, kind in hints.items():
        entry = given[key]
        if not isinstance(entry, dict) or set(entry) != {"value", "source"}:
            raise TrainingError(
                f'{file}: {key} is {json.dumps(entry)}; expected {{"value": …, "source": "…"}}'
            )
        values[key] = _value(file, key, kind, entry["value"])
        sources[key] = _text(file, entry, "source", f"{key}.source")
    member = Member(name, Settings(**values), sources)
    _check(file, member.settings)
    return member


def _value(file: Path, where: str, kind: Any, value: Any) -> Any:
    """``value`` as ``kind``; raises TrainingError where it is something else."""
    args = get_args(kind)
    if args:  # a tuple
        kinds = args
        if isinstance(value, list) and args[-1] is Ellipsis:
            kinds = (args[0],) * len(value)
        if not isinstance(value, list) or len(value) != len(kinds):
            count = "" if args[-1] is Ellipsis else f" of {len(args)}"
            raise TrainingError(f"{file}: {where} is {json.dumps(value)}; expected a list{count}")
        return tuple(
            _value(file, f"{where}[{i}]", k, v)
            for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if kind is float and type(value) is int:
        value = float(value)
    finite = type(value) is not float or math.isfinite(value)
    if type(value) is not kind or not finite:
        expected = {int: "a whole number", float: "a number", bool: "true or false"}
        raise TrainingError(
            f"{file}: {where} is {json.dumps(value)}; expected {expected.get(kind, 'text')}"
        )
    return value


def _check(file: Path, s: Settings) -> None:
    """What types cannot express."""
    stages = len(s.features)
    per_stage = (s.kernels, s.strides, s.encoder_blocks)
    positive = {
        "spacing_zyx": min(s.spacing_zyx),
        "patch_zyx": min(s.patch_zyx),
        "std": s.std,
        "features": min(s.features, default=0),
        "encoder_blocks": min(s.encoder_blocks, default=0),
        "decoder_convs": min(s.decoder_convs, default=0),
        "strides": min((n for stride in s.strides for n in stride), default=0),
        "kernels": min((n for kernel in s.kernels for n in kernel), default=0),
    }
    positive |= {
        key: getattr(s, key)
        for key in ("batch_size", "epochs", "iterations", "validation_iterations", "initial_lr")
    }
    positive["checkpoint_every"] = s.checkpoint_every
    rules = [(value > 0, f"{key} is above 0") for key, value in positive.items()]
    rules += [
        (s.network in NETWORKS, f"network is one of {', '.join(NETWORKS)}"),
        (s.logits_resampling in RESAMPLERS, f"logits_resampling is one of {', '.join(RESAMPLERS)}"),
        (s.clip[0] < s.clip[1], "clip has the lower bound first"),
        (s.clip[0] < s.mean < s.clip[1], "mean is between the bounds of clip"),
        (stages > 1, "features has two stages at least"),
        (
            all(len(values) == stages for values in per_stage),
            "kernels, strides and encoder_blocks have one entry for each of features",
        ),
        (len(s.decoder_convs) == stages - 1, "decoder_convs has one entry less than features"),
        (all(k % 2 for kernel in s.kernels for k in kernel), "kernels are odd"),
        (
            all(
                n % math.prod(strides) == 0
                for n, strides in zip(s.patch_zyx, zip(*s.strides, strict=True), strict=True)
            ),
            "patch_zyx is divisible by the product of the strides",
        ),
        (0 <= s.momentum < 1, "momentum is from 0 to below 1"),
        (s.weight_decay >= 0, "weight_decay is 0 or more"),
        (0 <= s.foreground_oversampling <= 1, "foreground_oversampling is from 0 to 1"),
        (0 <= s.seed < 2**32, "seed is from 0 to 2^32 - 1"),
    ]
    for holds, rule in rules:
        if not holds:
            raise TrainingError(f"{file}: breaks the rule that {rule}; correct the recipe")


def _refuse_difference(file: Path, recipe: Recipe) -> None:
    for member in recipe.members[1:]:
        for field in dataclasses.fields(Settings):
            ours, others = (getattr(s, field.name) for s in (member.settings, recipe.shared))
            if field.name not in OF_A_MEMBER and ours != others:
                raise TrainingError(
                    f"{file}: member {member.name} has another {field.name} than "
                    f"{recipe.members[0].name}; make a recipe of its own of it"
                )


def _read(file: Path) -> Json:
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        raise TrainingError(f"{file}: is missing; give a recipe's name or its file") from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file}: cannot be read ({error}); correct the recipe") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{file}: should hold a JSON object; correct the recipe")
    return content


def _only(file: Path, where: str, content: Json, known: Sequence[str]) -> None:
    unknown = sorted(content.keys() - set(known))
    if unknown:
        raise TrainingError(
            f"{file}: {where} has unknown {', '.join(unknown)}; known are {', '.join(known)}"
        )


def _mapping(file: Path, content: Json, key: str) -> Json:
    value = content.get(key, {})
    if not isinstance(value, dict):
        raise TrainingError(f"{file}: {key} is {json.dumps(value)}; expected an object")
    return value


def _text(file: Path, content: Json, key: str, where: str = "") -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise TrainingError(f"{file}: {where or key} is {json.dumps(value)}; expected some text")
    return value


def describe(recipe: Recipe) -> str:
    """A recipe's numbers and their sources, as Markdown."""
    lines = [f"# {recipe.name}", "", recipe.title + ".", ""]
    lines += [f"Paper: {recipe.paper}.", ""] if recipe.paper else []
    lines += [f"- {note}" for note in recipe.notes]
    lines += [f"- Other reading: `{recipe.name}:{reading}`" for reading in recipe.readings]
    for number, member in enumerate(recipe.members):
        values = {key: getattr(member.settings, key) for key in member.sources}
        rows = [
            (key, json.dumps(value), member.sources[key])
            for key, value in values.items()
            if number == 0 or value != getattr(recipe.shared, key)
        ]
        table = plain(("setting", "value", "source"), rows, words=(0, 1, 2))
        lines += ["", f"## {member.configuration}", "", table]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.recipes", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    parser.add_argument("recipe", nargs="?", help="NAME, NAME:READING or a .json file")
    args = parser.parse_args(arguments)

    def do() -> None:
        if args.recipe:
            print(describe(load_recipe(args.recipe)), end="")
        for name in () if args.recipe else shipped():
            print(f"{name:14} {load_recipe(name).title}")

    return exit_code(do)


if __name__ == "__main__":
    sys.exit(main())
