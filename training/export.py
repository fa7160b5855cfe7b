"""Trained nnU-Net v2 folders to one exported model: ``python -m training.export``."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from app.model import Member, ModelConfig, ModelError, load_model, save_manifest
from app.model_rules import DTYPES
from training.archive import unpacked
from training.checkpoint import Checkpoint, inference_weights, load_checkpoint
from training.command_line import parser
from training.errors import TrainingError
from training.plans import model_config
from training.postprocessing import NONE, postprocessing_of
from training.trained import find_checkpoints, previous_folder
from volumes.command import exit_code, say, warn
from volumes.files import sha256

# Trainers of nnunetv2 2.8.1 that build the network of the plans; any other may not.
_KNOWN_TRAINER = re.compile(
    r"nnUNetTrainer("
    r"_\d+epochs?(_NoMirroring)?|NoMirroring|_onlyMirror01(_1500ep|_DA5|_DASegOrd0)?"
    r"|DA5(Segord0|ord0|_10epochs)?|NoDA|_DASegOrd0(_NoMirroring)?|_noDummy2DDA|NoDeepSupervision"
    r"|(CE|Dice|DiceTopK10|Topk10)Loss(LS01|_5epochs)?|DiceCELoss_noSmooth"
    r"|(Adam|Adan|VanillaAdam)(1en1|1en3|3en4|CosAnneal)?|CosAnneal|_warmup"
    r"|_probabilisticOversampling(_010|_033)?|Benchmark_5epochs(_noDataLoading)?)?"
)
# What describes where a model comes from, and may differ between members of an ensemble.
_PROVENANCE = ("name", "dataset", "plans", "configuration", "trainer", "members", "notice")


@dataclass(frozen=True)
class Chosen:
    """What is taken of trained folders: which folds (None: all), checkpoint and precision.

    ``previous``: the folder of a cascade's first stage, if that is not beside the cascade's.
    """

    folds: Sequence[str] | None
    checkpoint: str
    dtype: str
    previous: Path | None

    def files(self, folders: Sequence[Path]) -> list[Path]:
        """The checkpoints of all folders, in order; raises TrainingError."""
        found = [f for one in folders for f in find_checkpoints(one, self.checkpoint, self.folds)]
        for number, file in enumerate(found):
            if file.resolve() in (other.resolve() for other in found[:number]):
                raise TrainingError(
                    f"{file}: is given twice; each member of an ensemble counts once"
                )
        return found


def export(
    folders: Sequence[Path],
    output: Path,
    folds: Sequence[str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    dtype: str = "float32",
    notice: str | None = None,
    postprocessing: str | None = None,
    ensemble: Sequence[Path] = (),
    previous: Path | None = None,
) -> list[str]:
    """Write the ensemble of all folds of all ``folders`` to ``output``; returns warnings.

    They must share everything but their weights, since their logits are averaged. Those of
    ``ensemble`` need not: each becomes a model of its own, with whose probabilities those of the
    first are averaged. ``postprocessing``: see `postprocessing_of`; ``previous``: see
    `previous_folder`. Raises TrainingError; ``output`` appears whole or not at all.
    """
    if output.exists():
        raise TrainingError(f"{output}: exists; remove it or choose another name")
    chosen = Chosen(folds, checkpoint, dtype, previous)
    files, together = chosen.files(folders), [*folders, *ensemble]
    done_after, warnings = postprocessing_of(together, files, postprocessing)
    others = {f"ensemble_{number}": folder for number, folder in enumerate(ensemble, start=1)}
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        said = {"name": output.name, "notice": notice, "postprocessing": done_after}
        warnings += _write(files, unfinished, chosen, {**said, "ensemble": tuple(others)})
        for name, folder in others.items():
            said = {"name": f"{output.name}/{name}"}
            warnings += _write(chosen.files([folder]), unfinished / name, chosen, said)
        with _naming(folders[0]):
            load_model(unfinished)
        unfinished.rename(output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return warnings


def _write(files: Sequence[Path], target: Path, chosen: Chosen, said: dict[str, Any]) -> list[str]:
    """Write one model, whose members are ``files``, and a cascade's first stage; returns warnings.

    said: fields of its model.json that are not in the trained folders.
    """
    target.mkdir(parents=True)
    config: ModelConfig | None = None
    members: list[Member] = []
    warnings: list[str] = []
    for file in files:
        folder, trained = file.parent.parent, load_checkpoint(file)
        here = model_config(
            folder, trained.configuration, trained.trainer, trained.mirror_axes, chosen.dtype
        )
        config = config or here
        _refuse_difference(config, here, file)
        if not _KNOWN_TRAINER.fullmatch(trained.trainer):
            warnings.append(
                f"{file}: trainer {trained.trainer} is not known here; the weights fit the "
                "plans, but check that it changes neither data nor inference"
            )
        weights = target / f"member_{len(members)}.safetensors"
        members.append(_save_member(trained, config, weights))
    assert config is not None
    with _naming(files[0].parent.parent):
        save_manifest(target, dataclasses.replace(config, members=tuple(members), **said))
    if config.previous_stage is not None:
        stage = config.previous_stage.folder
        before = chosen.files([previous_folder(folder, stage, chosen.previous)])
        given = load_checkpoint(before[0]).configuration
        if given != stage:
            raise TrainingError(
                f"{before[0]}: is of {given}; the cascade in {folder} needs {stage}"
            )
        said = {"name": f"{said['name']}/{stage}"}
        warnings += _write(before, target / stage, chosen, said)
    return warnings


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Say of the trained folder what would be said of the model.json that comes of it."""
    try:
        yield
    except ModelError as error:
        rule = str(error).partition(": ")[2].rpartition(";")[0]
        raise TrainingError(f"{folder}: gives a model that {rule}") from None


def _refuse_difference(config: ModelConfig, other: ModelConfig, file: Path) -> None:
    for field in dataclasses.fields(ModelConfig):
        a, b = getattr(config, field.name), getattr(other, field.name)
        if field.name not in _PROVENANCE and a != b:
            raise TrainingError(
                f"{file}: cannot join the ensemble, {field.name} is {b} and not {a}; "
                "give it to --ensemble, which averages probabilities"
            )


def _save_member(trained: Checkpoint, config: ModelConfig, file: Path) -> Member:
    dtype = getattr(torch, config.dtype)
    weights = {k: v.to(dtype) for k, v in inference_weights(trained, config.network).items()}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(
                f"{trained.file}: {name} is not finite as {config.dtype}; "
                "did the training diverge? Else export with --dtype float32"
            )
    try:
        save_file(weights, file)
    except SafetensorError as error:
        raise TrainingError(f"{file}: cannot be written ({error}); make room there") from None
    file.chmod(0o644)  # safetensors leaves it to its owner; a container may run as anyone
    *_, folder, fold, checkpoint = trained.file.resolve().parts
    source = f"{folder}/{fold}/{checkpoint}"
    source += "" if trained.epoch is None else f", epoch {trained.epoch}"
    return Member(file.name, sha256(file), source)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("export", __doc__)
    add = options.add_argument
    add(
        "folder",
        type=Path,
        metavar="TRAINED_FOLDER",
        help="holds plans.json and fold_X; or ZIP[/FOLDER] of nnUNetv2_export_model_to_zip",
    )
    add("--output", type=Path, required=True, help="new folder, by custom weights/NAME")
    add("--folds", nargs="+", help="such as 0 1, or all (default: every fold there is)")
    add("--checkpoint", default="checkpoint_final.pth")
    more: dict[str, Any] = {"type": Path, "nargs": "+", "default": [], "metavar": "TRAINED_FOLDER"}
    add("--add", **more, help="more members: their logits are averaged")
    add("--ensemble", **more, help="other configurations: their probabilities are averaged")
    add(
        "--previous-stage", type=Path, metavar="TRAINED_FOLDER", help="a cascade's (that beside it)"
    )
    add("--dtype", choices=DTYPES, default=DTYPES[0], help="float16 halves the file")
    add(
        "--postprocessing",
        metavar=f"FILE|{NONE}",
        help="nnU-Net's postprocessing.pkl or .json (default: that of the exported folds)",
    )
    add("--notice", help="said to whoever runs the model, for example what it is not good for")
    args = options.parse_args(arguments)

    def do() -> None:
        with ExitStack() as archives:
            folders, ensemble = (
                [archives.enter_context(unpacked(path)) for path in paths]
                for paths in ((args.folder, *args.add), args.ensemble)
            )
            warnings = export(
                folders,
                args.output,
                args.folds,
                args.checkpoint,
                args.dtype,
                args.notice,
                args.postprocessing,
                ensemble,
                args.previous_stage and archives.enter_context(unpacked(args.previous_stage)),
            )
        for warning in warnings:
            warn(warning)
        postprocessing = load_model(args.output).config.postprocessing
        if postprocessing is not None:
            say(f"{args.output}: {postprocessing} stays in its masks, as in nnU-Net")
        say(f"{args.output}: {', '.join(sorted(f.name for f in args.output.iterdir()))}")

    return exit_code(do)


if __name__ == "__main__":
    sys.exit(main())
