"""A recipe's training from prepared data to an exported model with its scores.

``python -m training.train RECIPE --data PREPARED --output DIR``

nnU-Net's trainer trains the members of the recipe one after another; they are exported as one
model, which the app then runs on the held-out fold and the harness scores. DIR gets nnU-Net's
results, ``validation/``, summary.json and summary.md. Killed and started again, it goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training import nnunet
from training.errors import GOES_ON, TrainingError, exit_code
from training.export import export
from training.files import write_json, write_text
from training.lesion_filter import choose
from training.planning import plans, preprocessing
from training.prepared import ALL, held_out, read_record
from training.prepared import cases as prepared_cases
from training.recipes import Recipe, load_recipe
from training.validation import markdown, summary, validate

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What is asked for, apart from the recipe."""

    data: Path  # of training.prepare
    output: Path
    target: Path  # the exported model
    fold: str = "0"
    device: str = "auto"
    processes: int = 1
    nnunet_validation: bool = False
    notice: str | None = None
    lesion_filter: bool = False


def train(recipe: Recipe, request: Request) -> Json:
    """Train, export, validate; returns what summary.json holds. Raises TrainingError."""
    record = _prepared(recipe, request.data)
    names = held_out(request.data, record, request.fold)
    if request.lesion_filter and not names:
        raise TrainingError(f"--lesion-filter: --fold {ALL} holds nothing out to choose one on")
    exported = request.output / "exported.txt"  # says that the model there is this training's
    target = request.target.resolve()
    ours = exported.exists() and exported.read_text().strip() == str(target)
    if target.exists() and not ours:
        raise TrainingError(f"{request.target}: exists; remove it or choose another --export")
    folders = _train_members(recipe, record["dataset"], request)
    shutil.rmtree(target, ignore_errors=True)  # of an earlier start, maybe with fewer epochs
    for warning in export(folders, target, [request.fold], notice=request.notice):
        print(f"warning: {warning}", file=sys.stderr)
    write_text(exported, f"{target}\n")
    content: Json = {
        "recipe": recipe.name,
        "title": recipe.title,
        "dataset": record["dataset"],
        "split_seed": record["asked"]["seed"],
        "fold": request.fold,
        "model": str(request.target),
        "members": [
            json.loads((folder / f"fold_{request.fold}" / "training.json").read_text())
            for folder in folders
        ],
    }
    if names:
        raw = request.data / nnunet.RAW / record["dataset"]
        folder = request.output.resolve() / "validation"
        rows = validate(target, raw, names, folder, request.device)
        of = {name: record["patients"][name] for name in names}
        content |= {"validation": summary(rows), "patients": of, "cases": rows}
    if request.lesion_filter:
        cases, source = prepared_cases(request.data, record, names), f"fold {request.fold}"
        choice = choose(target, cases, f"{source} of {record['dataset']}", request.device)
        write_text(request.output / "lesion_filter.md", choice.markdown())
        content["lesion_filter"] = choice.verdict
    write_json(request.output / "summary.json", content)
    write_text(request.output / "summary.md", markdown(content))
    return content


def _prepared(recipe: Recipe, folder: Path) -> Json:
    """The record of training.prepare; raises TrainingError where the recipe cannot use its data."""
    record = read_record(folder)
    ours = preprocessing(plans(recipe, record["dataset"]))
    if ours != record["asked"]["preprocessing"]:
        raise TrainingError(
            f"{folder}: was prepared for {record['recipe']}, whose preprocessing is another; "
            f"run python -m training.prepare {recipe.name} into a new folder"
        )
    return record


def _train_members(recipe: Recipe, dataset: str, request: Request) -> list[Path]:
    """Train each member in a process of nnU-Net's; returns the trained folders."""
    plans_file = request.output / "plans.json"
    write_json(plans_file, plans(recipe, dataset))
    results = request.output / nnunet.RESULTS
    folders = []
    for number, member in enumerate(recipe.members, 1):
        of = f" (member {number} of {len(recipe.members)})" if member.name else ""
        print(f"training {recipe.name}, {member.configuration}{of}", flush=True)
        nnunet.run(
            "trainer",
            plans_file.resolve(),
            member.configuration,
            request.fold,
            f"--device={request.device}",
            *(["--validate"] if request.nnunet_validation else []),
            data=request.data,
            results=results,
            processes=request.processes,
        )
        name = f"nnUNetTrainer__{recipe.name}__{member.configuration}"
        folders.append(results / dataset / name)
    return folders


def with_epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    """The same recipe with another number of epochs, where one is given."""
    if epochs is None:
        return recipe
    members = [
        dataclasses.replace(m, settings=dataclasses.replace(m.settings, epochs=epochs))
        for m in recipe.members
    ]
    return dataclasses.replace(recipe, members=tuple(members))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, found {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    add = parser.add_argument
    add("recipe", help="a recipe's NAME, NAME:READING or .json file (python -m training.recipes)")
    add("--data", type=Path, required=True, metavar="PREPARED", help="by training.prepare")
    add("--output", type=Path, required=True, help="new, or one to go on with")
    add("--export", type=Path, help="new folder for the model (default weights/RECIPE)")
    add("--fold", default="0", help=f"which is held out (0); {ALL}: none")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--epochs", type=_positive, help="other than the recipe's, to try things out")
    add("--processes", type=_positive, default=min(4, os.cpu_count() or 1), help="(up to 4)")
    add("--nnunet-validation", action="store_true", help="nnU-Net's own as well, mirrored: slow")
    add(
        "--lesion-filter",
        action="store_true",
        help="choose one on the fold (training.lesion_filter)",
    )
    add("--notice", help="said to whoever runs the model, for example what it is not good for")
    args = parser.parse_args(arguments)

    def do() -> None:
        recipe = with_epochs(load_recipe(args.recipe), args.epochs)
        request = Request(
            data=args.data,
            output=args.output,
            target=args.export or nnunet.ROOT / "weights" / recipe.name,
            fold=args.fold,
            device=args.device,
            processes=args.processes,
            nnunet_validation=args.nnunet_validation,
            notice=args.notice,
            lesion_filter=args.lesion_filter,
        )
        print(markdown(train(recipe, request)))

    return exit_code(do, GOES_ON)


if __name__ == "__main__":
    sys.exit(main())
