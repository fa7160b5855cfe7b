"""The published trainings as data: ``recipes/*.json``, one system each, each number sourced.

A recipe is named on a command line by a shipped name or by a path, with ``:READING`` behind it
where a paper can be read in two ways. ``python -m training.recipes`` lists them, with a recipe it
prints its numbers and where they come from.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from evaluation.tables.markup import markdown_table
from training.command_line import parser
from training.errors import TrainingError
from volumes.command import exit_code

SHIPPED = Path(__file__).resolve().parent / "recipes"

Text = Annotated[str, Meta(pattern=r"\S")]
Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]
Triple = tuple[Count, Count, Count]


@dataclass(frozen=True)
class Settings:
    """Every number that one training needs; axes are z, y, x."""

    spacing_zyx: tuple[Positive, Positive, Positive]  # mm
    patch_zyx: Triple  # voxels
    clip: tuple[float, float]  # HU
    mean: float  # HU, subtracted after clipping
    std: Positive  # HU, divided by
    logits_resampling: Literal["default", "torch"]  # nnU-Net's own, or torch's linear interpolation
    network: Literal["PlainConvUNet", "ResidualEncoderUNet"]
    features: Annotated[tuple[Count, ...], Meta(min_length=2)]  # of each stage, finest first
    kernels: tuple[Triple, ...]
    strides: tuple[Triple, ...]
    encoder_blocks: tuple[Count, ...]  # convolutions (PlainConvUNet) or residual blocks
    decoder_convs: tuple[Count, ...]  # one entry less than stages, coarsest first
    batch_size: Count
    batch_dice: bool  # Dice over the batch as one volume, not of each patch
    epochs: Count
    iterations: Count  # of an epoch
    validation_iterations: Count  # of an epoch
    initial_lr: Positive
    momentum: Annotated[float, Meta(ge=0, lt=1)]
    weight_decay: Annotated[float, Meta(ge=0)]
    foreground_oversampling: Annotated[float, Meta(ge=0, le=1)]  # of a batch: must show a lesion
    checkpoint_every: Count  # epochs
    seed: Annotated[int, Meta(ge=0, lt=2**32)]


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


def _sourced(kind: Any) -> Any:
    """A value of that kind, as a recipe has it: with its source."""
    fields = [("value", kind), ("source", Text)]
    return msgspec.defstruct("Sourced", fields, frozen=True, forbid_unknown_fields=True)


_KINDS = {k: _sourced(v) for k, v in get_type_hints(Settings, include_extras=True).items()}
# Some of the settings: those that a file, a reading or a member gives.
_Given: Any = msgspec.defstruct(
    "Given",
    [(key, kind | UnsetType, UNSET) for key, kind in _KINDS.items()],
    frozen=True,
    forbid_unknown_fields=True,
)


class _Reading(msgspec.Struct, forbid_unknown_fields=True):
    title: Text
    settings: _Given


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A recipe's file; what it is based on fills in what it leaves out."""

    title: Text
    settings: _Given = _Given()
    paper: str = ""
    based_on: str = ""
    notes: list[str] = []
    readings: dict[str, _Reading] = {}
    members: dict[str, _Given] = {}


def load_recipe(named: str) -> Recipe:
    """The recipe NAME, NAME:READING, FILE.json or FILE.json:READING; raises TrainingError."""
    stem, _, reading = named.partition(":")
    file = Path(stem) if stem.endswith(".json") else SHIPPED / f"{stem}.json"
    if file.parent == SHIPPED and not file.exists():
        raise TrainingError(
            f"{stem}: no such recipe; choose one of {', '.join(shipped())}, or give a .json file"
        )
    content = _read(file)
    settings, title = _given(content.settings), content.title
    if content.based_on:
        base = _read(SHIPPED / f"{content.based_on}.json")
        if base.based_on:
            raise TrainingError(
                f"{file}: is based on {content.based_on}, which is based on another; name that one"
            )
        settings = _given(base.settings) | settings
        content.notes += base.notes
        for name in ("paper", "readings", "members"):
            setattr(content, name, getattr(content, name) or getattr(base, name))
    if reading:
        if reading not in content.readings:
            known = ", ".join(content.readings) or "none"
            raise TrainingError(f"{file}: has no reading {reading!r}, only {known}")
        title += f"; {content.readings[reading].title}"
        settings |= _given(content.readings[reading].settings)
    recipe = Recipe(
        name=file.stem + (f"-{reading}" if reading else ""),
        title=title,
        paper=content.paper,
        notes=tuple(content.notes),
        readings=() if reading else tuple(content.readings),
        members=tuple(
            _member(file, name, settings | _given(of))
            for name, of in (content.members or {"": _Given()}).items()
        ),
    )
    _refuse_difference(file, recipe)
    return recipe


def shipped() -> list[str]:
    """The names of the recipes that come with the project."""
    return sorted(file.stem for file in SHIPPED.glob("*.json"))


def _read(file: Path) -> _File:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_File)
    except FileNotFoundError:
        raise TrainingError(f"{file}: is missing; give a recipe's name or its file") from None
    except (OSError, msgspec.MsgspecError) as error:
        raise TrainingError(f"{file}: {error}; correct the recipe") from None


def _given(part: Any) -> dict[str, Any]:
    """The settings that are given there, each with its source."""
    return {key: entry for key in _KINDS if (entry := getattr(part, key)) is not UNSET}


def _member(file: Path, name: str, given: Mapping[str, Any]) -> Member:
    if missing := [key for key in _KINDS if key not in given]:
        raise TrainingError(f"{file}: settings lack {', '.join(missing)}; add each with its source")
    settings = Settings(**{key: given[key].value for key in _KINDS})
    _check(file, settings)
    return Member(name, settings, {key: given[key].source for key in _KINDS})


def _check(file: Path, s: Settings) -> None:
    """What the types cannot express."""
    stages = len(s.features)
    per_stage = (s.kernels, s.strides, s.encoder_blocks)
    steps = [math.prod(strides) for strides in zip(*s.strides, strict=True)]
    rules = (
        (s.clip[0] < s.clip[1], "clip has the lower bound first"),
        (s.clip[0] < s.mean < s.clip[1], "mean is between the bounds of clip"),
        (
            all(len(values) == stages for values in per_stage),
            "kernels, strides and encoder_blocks have one entry for each of features",
        ),
        (len(s.decoder_convs) == stages - 1, "decoder_convs has one entry less than features"),
        (all(k % 2 for kernel in s.kernels for k in kernel), "kernels are odd"),
        (
            not any(n % step for n, step in zip(s.patch_zyx, steps, strict=False)),
            "patch_zyx is divisible by the product of the strides",
        ),
    )
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


def describe(recipe: Recipe) -> str:
    """A recipe's numbers and their sources, as Markdown."""
    lines = [f"# {recipe.name}", "", recipe.title + ".", ""]
    lines += [f"Paper: {recipe.paper}.", ""] if recipe.paper else []
    lines += [f"- {note}" for note in recipe.notes]
    lines += [f"- Other reading: `{recipe.name}:{reading}`" for reading in recipe.readings]
    for number, member in enumerate(recipe.members):
        rows = []
        for key, source in member.sources.items():
            value = getattr(member.settings, key)
            if number == 0 or value != getattr(recipe.shared, key):
                rows.append((key, json.dumps(value), source))
        table = markdown_table(("setting", "value", "source"), rows, words=range(3))
        lines += ["", f"## {member.configuration}", "", table]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("recipes", __doc__)
    options.add_argument("recipe", nargs="?", help="NAME, NAME:READING or a .json file")
    args = options.parse_args(arguments)

    def do() -> None:
        if args.recipe:
            print(describe(load_recipe(args.recipe)), end="")
        for name in () if args.recipe else shipped():
            print(f"{name:14} {load_recipe(name).title}")

    return exit_code(do)


if __name__ == "__main__":
    sys.exit(main())
