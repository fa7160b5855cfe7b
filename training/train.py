"""A recipe's training from prepared data to an exported model with its scores.

``python -m training.train RECIPE --data PREPARED --output DIR``

nnU-Net's trainer trains the members of the recipe one after another; they are exported as one
model, which the app then runs on the held-out fold and the harness scores. DIR gets nnU-Net's
results, ``validation/``, summary.json and summary.md. Killed and started again, it goes on; what is
done is not done again, and what has been added to the model since is never removed.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.model import MANIFEST, load_model
from evaluation.numbers import positive
from training import nnunet
from training.command_line import GOES_ON, parser
from training.errors import TrainingError
from training.export import export
from training.files import Json, read_json, stamp, write_json
from training.lesion_filter import choose
from training.planning import plans, preprocessing
from training.prepared import ALL, held_out, read_record
from training.prepared import cases as prepared_cases
from training.recipes import Member, Recipe, load_recipe
from training.validation import markdown, summary, validate
from volumes.command import exit_code, say, warn
from volumes.files import write_whole

EXPORTED = "exported.json"  # which model is this training's, and of which checkpoints


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


@dataclass(frozen=True)
class _MemberRun:
    """The training of one member of the recipe. folder: nnU-Net's, of the plans and folds."""

    member: Member
    folder: Path
    fold: str

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that is written when the training has ended."""
        return self.folder / f"fold_{self.fold}" / "checkpoint_final.pth"

    def report(self) -> Json:
        """What training.trainer reports of it; empty until it has ended."""
        file = self.checkpoint.with_name("training.json")
        return read_json(file, "remove it") if file.exists() else {}

    def is_done(self, nnunet_validation: bool) -> bool:
        """Whether it has as many epochs as are asked for, no fewer and no more."""
        validated = self.checkpoint.with_name("validation") / "summary.json"
        return (
            self.checkpoint.exists()
            and self.report().get("epochs") == self.member.settings.epochs
            and (validated.exists() or not nnunet_validation)
        )


def train(recipe: Recipe, request: Request) -> Json:
    """Train, export, validate; returns what summary.json holds. Raises TrainingError."""
    record = _prepared(recipe, request.data)
    names = held_out(request.data, record, request.fold)
    if request.lesion_filter and not names:
        raise TrainingError(f"--lesion-filter: --fold {ALL} holds nothing out to choose one on")
    dataset = request.output / nnunet.RESULTS / record["dataset"]
    runs = [
        _MemberRun(m, dataset / f"nnUNetTrainer__{recipe.name}__{m.configuration}", request.fold)
        for m in recipe.members
    ]
    if not _is_exported(runs, request):
        _refuse_to_remove(request)
    write_json(request.output / "plans.json", plans(recipe, record["dataset"]))
    for number, run in enumerate(runs, 1):
        if not run.is_done(request.nnunet_validation):
            of = f" (member {number} of {len(runs)})" if len(runs) > 1 else ""
            say(f"training {recipe.name}, {run.member.configuration}{of}")
            _train_member(run.member, request)
    if not _is_exported(runs, request):
        _export(runs, request)
    content: Json = {
        "recipe": recipe.name,
        "title": recipe.title,
        "dataset": record["dataset"],
        "split_seed": record["asked"]["seed"],
        "fold": request.fold,
        "model": str(request.target.resolve()),
        "members": [run.report() for run in runs],
    }
    if names:
        content |= _validated(names, record, request, content["members"])
    _write_summary(content, request.output)
    if request.lesion_filter and "lesion_filter" not in content:
        cases, source = prepared_cases(request.data, record, names), f"fold {request.fold}"
        source += f" of {record['dataset']}"
        choice = choose(request.target.resolve(), cases, source, request.device)
        write_whole(request.output / "lesion_filter.md", choice.markdown())
        content["lesion_filter"] = choice.verdict
        _write_summary(content, request.output)
    return content


def _origin(runs: Sequence[_MemberRun], request: Request) -> Json:
    """Return what the exported model is made of, in the types of JSON."""
    return {
        "model": str(request.target.resolve()),
        "notice": request.notice,
        "checkpoints": [stamp(run.checkpoint) for run in runs],
    }


def _is_exported(runs: Sequence[_MemberRun], request: Request) -> bool:
    """Whether the model is there, and is of these trainings as they are asked for."""
    marker = request.output / EXPORTED
    return (
        request.target.exists()
        and marker.exists()
        and all(run.is_done(nnunet_validation=False) for run in runs)
        and read_json(marker, "remove it") == _origin(runs, request)
    )


def _refuse_to_remove(request: Request) -> None:
    """Raise TrainingError where an export would remove what it has not written itself."""
    if not request.target.exists():
        return
    marker = request.output / EXPORTED
    ours = read_json(marker, "remove it") if marker.exists() else {}
    if ours.get("model") != str(request.target.resolve()):
        raise TrainingError(f"{request.target}: exists; remove it or choose another --export")
    model = load_model(request.target)
    written = {MANIFEST, *(member.file for member in model.config.members)}
    added = sorted(file.name for file in request.target.iterdir() if file.name not in written)
    added += ["a lesion filter"] if model.config.lesion_filter is not None else []
    if added:
        raise TrainingError(
            f"{request.target}: is of another training and has {', '.join(added)}, which a new "
            "export would remove; choose another --export, or remove it yourself"
        )


def _export(runs: Sequence[_MemberRun], request: Request) -> None:
    """Export anew; if this is killed at any moment, the next call sees that it is not done."""
    target = request.target.resolve()
    shutil.rmtree(target, ignore_errors=True)
    write_json(request.output / EXPORTED, _origin(runs, request))
    folders = [run.folder for run in runs]
    for warning in export(folders, target, [request.fold], notice=request.notice):
        warn(warning)


def _validated(names: list[str], record: Json, request: Request, members: list[Json]) -> Json:
    """The scores of the held-out cases; those of an earlier call, if it was of the same weights."""
    summary_file = request.output / "summary.json"
    before = read_json(summary_file, "remove it") if summary_file.exists() else {}
    scored = {row["case"] for row in before.get("cases", ())}
    if before.get("members") == members and scored == set(names):
        kept = ("validation", "patients", "cases", "lesion_filter")
        return {key: before[key] for key in kept if key in before}
    raw = request.data / nnunet.RAW / record["dataset"]
    folder = request.output.resolve() / "validation"
    rows = validate(request.target.resolve(), raw, names, folder, request.device)
    of = {name: record["patients"][name] for name in names}
    return {"validation": summary(rows), "patients": of, "cases": rows}


def _write_summary(content: Json, output: Path) -> None:
    write_json(output / "summary.json", content)
    write_whole(output / "summary.md", markdown(content))


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


def _train_member(member: Member, request: Request) -> None:
    """Train one member in a process of nnU-Net's environment."""
    nnunet.run(
        "trainer",
        (request.output / "plans.json").resolve(),
        member.configuration,
        request.fold,
        f"--device={request.device}",
        *(["--validate"] if request.nnunet_validation else []),
        data=request.data,
        results=request.output / nnunet.RESULTS,
        processes=request.processes,
    )


def with_epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    """The same recipe with another number of epochs, where one is given."""
    if epochs is None:
        return recipe
    members = [
        dataclasses.replace(m, settings=dataclasses.replace(m.settings, epochs=epochs))
        for m in recipe.members
    ]
    return dataclasses.replace(recipe, members=tuple(members))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("train", __doc__)
    add = options.add_argument
    add("recipe", help="a recipe's NAME, NAME:READING or .json file (python -m training.recipes)")
    add("--data", type=Path, required=True, metavar="PREPARED", help="by training.prepare")
    add("--output", type=Path, required=True, help="new, or one to go on with")
    add("--export", type=Path, help="new folder for the model (default weights/RECIPE)")
    add("--fold", default="0", help=f"which is held out (0); {ALL}: none")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--epochs", type=positive(int), help="other than the recipe's, to try things out")
    add("--processes", type=positive(int), default=min(4, os.cpu_count() or 1), help="(up to 4)")
    add("--nnunet-validation", action="store_true", help="nnU-Net's own as well, mirrored: slow")
    add(
        "--lesion-filter",
        action="store_true",
        help="choose one on the fold (training.lesion_filter)",
    )
    add("--notice", help="said to whoever runs the model, for example what it is not good for")
    given = vars(options.parse_args(arguments))
    named, epochs, target = (given.pop(key) for key in ("recipe", "epochs", "export"))

    def do() -> None:
        recipe = with_epochs(load_recipe(named), epochs)
        target_or_default = target or nnunet.ROOT / "weights" / recipe.name
        request = Request(target=target_or_default, **given)
        print(markdown(train(recipe, request)))
        say(f"model: {request.target}")
        say(f"next: python -m training.card {request.output}")

    return exit_code(do, GOES_ON)


if __name__ == "__main__":
    sys.exit(main())
