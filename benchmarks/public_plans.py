"""How many plans.json of public repositories become models, and why the others do not.

``python -m benchmarks.public_plans FOLDER`` takes each X.json with a configuration in three
dimensions, and X.dataset.json where that was published, gives the network random weights, exports
it and segments a small scan of noise. It writes a Markdown table with a row for each.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app import load
from app.model import ModelConfig, load_model
from app.networks import build_network
from benchmarks.command_line import parser, publish
from benchmarks.machine import description
from evaluation.tables.markup import markdown_table
from training.errors import TrainingError
from training.export import export
from training.files import Json, read_json
from training.plans import resolve_configuration
from training.random_weights import write_random
from volumes import nifti
from volumes.grid import Grid

_OTHER_NETWORK = "network class "  # what the reason starts with where the app has not the network
_SCAN_VOXELS = (12, 40, 48)
_HEAD = ("plans.json", "dataset", "configuration", "reader", "network", "parameters, M")


@dataclass(frozen=True)
class Outcome:
    """What became of one plans.json: a model, or why there is none."""

    file: str
    dataset: str
    configuration: str
    reader: str
    model: ModelConfig | None = None
    refused: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("public_plans", __doc__)
    options.add_argument("folder", type=Path, help="of X.json and X.dataset.json")
    args = options.parse_args(arguments)
    outcomes = []
    for file in plans_in(args.folder):
        with tempfile.TemporaryDirectory() as work:
            outcome = exported(file, Path(work))
            if outcome.model is not None:
                segment(outcome.model, Path(work))
        print(f"{file.name}: {outcome.refused or 'exported, segmented'}", file=sys.stderr)
        outcomes.append(outcome)
    publish(table(outcomes), args.output / "public-plans.md")
    return 0


def plans_in(folder: Path) -> list[Path]:
    """The plans.json in a folder that have a configuration in three dimensions."""
    files = sorted(f for f in folder.glob("*.json") if not f.name.endswith(".dataset.json"))
    return [file for file in files if _configurations(_read(file))]


def exported(file: Path, work: Path) -> Outcome:
    """Export one plans.json with random weights to ``work``/model."""
    plans = _read(file)
    configuration = _configurations(plans)[-1]
    reader = plans["image_reader_writer"]
    outcome = Outcome(file.stem, plans["dataset_name"], configuration, reader)
    beside = file.with_suffix(".dataset.json")
    schemes = resolve_configuration(plans, configuration)["normalization_schemes"]
    dataset = _read(beside) if beside.exists() else _dataset(schemes)
    try:
        write_random(work / "trained", plans, dataset, configuration)
        export([work / "trained"], work / "model")
    except TrainingError as error:
        return replace(outcome, refused=str(error).rpartition(".json: ")[2])
    return replace(outcome, model=load_model(work / "model").config)


def table(outcomes: Sequence[Outcome]) -> str:
    """How many of them came to what, and a row for each."""
    supported = [o for o in outcomes if not o.refused.startswith(_OTHER_NETWORK)]
    done = [o for o in supported if o.model is not None]
    rows = []
    for o in outcomes:
        network, parameters = "", ""
        if o.model is not None:
            weights = build_network(o.model.network).parameters()
            parameters = f"{sum(p.numel() for p in weights) / 1e6:.1f}"
            network = o.model.network.name
        cells = [o.file, o.dataset, o.configuration, o.reader, network, parameters]
        said = f"refused: {o.refused}" if o.refused else "exported, segmented"
        rows.append([*cells, said])
    size = " x ".join(map(str, _SCAN_VOXELS))
    return (
        f"{description()}.\n\nOf {len(outcomes)} plans.json with a 3D configuration "
        f"{len(outcomes) - len(supported)} are for networks that the app has not. Of the other "
        f"{len(supported)}, {len(done)} ({len(done) / len(supported):.0%}) were exported with "
        f"random weights and segmented a scan of {size} voxels.\n\n"
        + markdown_table([*_HEAD, "outcome"], rows, words=(0, 1, 2, 3, 4, 6))
    )


def _read(file: Path) -> Json:
    return read_json(file, "give a folder of plans.json")


def _configurations(plans: Json) -> list[str]:
    """Those in three dimensions that are complete and no cascade; people's own come last."""
    known = {name: resolve_configuration(plans, name) for name in plans["configurations"]}
    return [
        name
        for name, of in known.items()
        if len(of.get("patch_size", ())) == 3
        and "normalization_schemes" in of
        and not of.get("previous_stage")
    ]


def _dataset(schemes: Sequence[str]) -> Json:
    """A dataset.json where none was published: two classes, and as many channels as there are."""
    channels = {str(number): scheme for number, scheme in enumerate(schemes)}
    return {"channel_names": channels, "labels": {"background": 0, "lesion": 1}}


def segment(model: ModelConfig, work: Path) -> None:
    """Let ``work``/model segment noise on the CPU; raises what that raises."""
    target = model.spacing_on((1.0, 1.0, 1.0))
    spacing = [target[model.transpose.index(axis)] for axis in range(3)]
    grid = Grid.of_affine(_SCAN_VOXELS, np.diag([*spacing[::-1], 1.0]))
    noise, files = np.random.default_rng(0), []
    for channel in range(len(model.channels)):
        voxels = noise.normal(50, 100, _SCAN_VOXELS).astype(np.int16)
        files.append(work / f"noise_{channel:04d}.nii.gz")
        nifti.write(files[-1], nifti.header_of(grid), voxels.dtype, [voxels])
    mask = load(work / "model", "cpu").predict(files)
    assert mask.voxels_zyx.shape == _SCAN_VOXELS


if __name__ == "__main__":
    sys.exit(main())
