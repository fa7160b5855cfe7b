"""What each shortcut of the app's default mode saves and what it costs, one by one.

``python -m benchmarks.shortcuts [--scans FOLDER] [--models FOLDER]`` writes Markdown tables:

- the default, with and without bfloat16, against ``--exact``: voxels that differ and Dice;
- the default against itself with one shortcut turned off (``--crop-to-body``: on): time and memory
  on the published 5.6M network with random weights, masks on trained models;
- how many windows ``--crop-to-body`` spares.

Masks are of the two demonstration scans and those of the folder, by the model in weights/ and
those of the folder. Each row changes one thing in the default, and what rows save does not add up:
torch's own instance norm, say, also takes a voxel's channels apart. That logits are interpolated
only where a lesion is possible cannot be turned off, and has no row.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.image import read_image
from app.model import Model, ModelConfig, load_model
from app.preprocess import prepare
from app.sliding_window import window_count
from benchmarks.command_line import parser, publish
from benchmarks.machine import Run, description, measured
from benchmarks.programs import ROOT
from benchmarks.published import HUANG, make_weights
from evaluation import volumes
from evaluation.numbers import positive
from evaluation.scoring.metrics import dice
from evaluation.tables.markup import markdown_table
from examples.samples import fetch

STEP_SIZE = 0.5  # the app's default
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# The app with one name bound to something else once it has set its environment: torch, which reads
# that when it is imported, must not be imported earlier here than in `python -m app`.
_PATCHED_APP = """
import importlib, sys
from app import __main__ as command, run
load = run._loaded
def patched(*given):
    import torch
    from app import configuration, loading, networks, predict, preprocess, sliding_window
    {name}  # fails if there is no such name
    {name} = {value}
    return load(*given)
run._loaded = patched
command._leave(command.main())
"""


@dataclass(frozen=True)
class Variant:
    """One way to run the app: ``patch`` is a name in it, and what it is bound to instead."""

    name: str
    patch: tuple[str, str] | None = None
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def python(self) -> list[str]:
        """What Python is to run."""
        if self.patch is None:
            return ["-m", "app", *self.options]
        name, value = self.patch
        return ["-c", _PATCHED_APP.format(name=name, value=value), *self.options]


@dataclass(frozen=True)
class Cost:
    """What the network and the whole process took."""

    network_s: float
    wall_s: float
    peak_rss_mib: float
    windows: int


@dataclass(frozen=True)
class Difference:
    """How a mask differs from another."""

    voxels: int
    dice: float


@dataclass(frozen=True)
class Masks:
    """One model on one scan: the default against ``--exact``, and variants against the default."""

    scan: str
    voxels: int
    lesion: int  # voxels, by --exact
    default: Difference
    in_float32: Difference  # from --exact, too
    variants: dict[str, Difference]


EXACT = Variant("exact", options=("--exact",))
DEFAULT = Variant("the default")
IN_FLOAT32 = Variant("without bfloat16", ("loading.cpu_has_bfloat16", "lambda: False"))
CROP_TO_BODY = Variant("with --crop-to-body", options=("--crop-to-body",))
VARIANTS = (
    IN_FLOAT32,
    Variant(
        "without one channel for two classes", ("configuration.is_two_class", "lambda *_: False")
    ),
    Variant(
        "without dropping biases that cancel", ("loading.drop_cancelled_biases", "lambda _: None")
    ),
    Variant(
        "without instance norm in place (torch's own)",
        ("networks.InstanceNorm._normalise", "torch.nn.InstanceNorm3d.forward"),
    ),
    Variant(
        "without activation in place", ("networks.F.leaky_relu_", "torch.nn.functional.leaky_relu")
    ),
    Variant(
        "without a voxel's channels together", ("loading.lay_channels_together", "lambda _: None")
    ),
    Variant(
        "with a count volume, as nnU-Net has it",
        (
            "sliding_window._sums_of_weights",
            "importlib.import_module('benchmarks.count_volume').sums_of_weights",
        ),
    ),
    Variant("without huge pages", environment={"THP_MEM_ALLOC_ENABLE": "0"}),
    Variant("with the input at once", ("preprocess.has_slabs", "lambda _: False")),
    CROP_TO_BODY,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("shortcuts", __doc__)
    options.add_argument("--scans", type=Path, help="a folder of more scans")
    options.add_argument("--models", type=Path, help="a folder of more exported, trained models")
    options.add_argument(
        "--repeats", type=positive(int), default=3, help="of timed runs; medians are shown"
    )
    args = options.parse_args(arguments)
    samples = [s.scan for s in fetch(ROOT / "runs" / "samples")]
    scans = samples + (sorted(args.scans.glob("*.nii.gz")) if args.scans else [])
    folders = [m.parent for m in sorted((ROOT / "weights").glob("*/model.json"))]
    folders += sorted(m.parent for m in args.models.glob("*/model.json")) if args.models else []
    models = [load_model(folder) for folder in folders]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        published = load_model(make_weights(HUANG, work).model)
        costs = _costs(published, samples[0], args.repeats, work)
        masks = {m.folder.name: [_masks(m, scan, work) for scan in scans] for m in models}
    windows = {scan.name: _windows_saved([published, *models], scan) for scan in scans}
    report = "\n".join(
        [
            f"{description()}; the kernel gives huge pages: {_huge_pages()}.",
            *(
                f"\nModel {name}, the default against `--exact`.\n\n{exact_table(of)}"
                for name, of in masks.items()
            ),
            f"\nSeconds and MiB: the published 5.6M network with random weights on "
            f"{samples[0].name}, medians of {args.repeats} cold processes. Masks of {len(scans)} "
            "scans against the default's: voxels that differ, summed, and the least Dice.\n",
            shortcut_table(costs, {name: [m.variants for m in of] for name, of in masks.items()}),
            "\nWindows, without and with --crop-to-body.\n",
            windows_table(["published 5.6M", *(m.folder.name for m in models)], windows),
        ]
    )
    publish(report, args.output / "shortcuts.md")
    return 0


def difference(mask: NDArray[Any], reference: NDArray[Any]) -> Difference:
    """Count the voxels in which two masks of one shape differ."""
    return Difference(int(np.count_nonzero(mask != reference)), dice(mask, reference))


def exact_table(masks: Sequence[Masks]) -> str:
    """What the default and the default in float32 cost against ``--exact``, scan by scan."""
    counts = ("voxels", "lesion voxels, `--exact`", "voxels that differ", "Dice")
    return markdown_table(
        ("scan", *counts, "without bfloat16: voxels that differ", "Dice"),
        [
            [m.scan, str(m.voxels), str(m.lesion), *_cells(m.default), *_cells(m.in_float32)]
            for m in masks
        ],
    )


def shortcut_table(
    costs: Mapping[str, Cost], masks: Mapping[str, Sequence[Mapping[str, Difference]]]
) -> str:
    """A row for the default and one for every variant in ``costs``.

    ``masks``: for each model, scan by scan, how each variant's mask differs from the default's.
    """
    rows = []
    for name, cost in costs.items():
        cells = [name, f"{cost.network_s:.2f}", f"{cost.wall_s:.2f}", f"{cost.peak_rss_mib:.0f}"]
        cells.append(str(cost.windows))
        for of in masks.values():
            found = [of_scan[name] for of_scan in of if name in of_scan]
            cells += _cells(_of_all(found)) if found else ["", ""]
        rows.append(cells)
    head = ["", "network, s", "whole process, s", "peak RSS, MiB", "windows"]
    for model in masks:
        head += [f"{model}: voxels that differ", "Dice"]
    return markdown_table(head, rows)


def windows_table(networks: Sequence[str], windows: Mapping[str, Sequence[tuple[int, int]]]) -> str:
    """For each scan and network the number of windows without and with ``--crop-to-body``."""
    rows = [[scan, *(f"{a}, {b}" for a, b in counts)] for scan, counts in windows.items()]
    return markdown_table(["scan", *networks], rows)


def _of_all(differences: Sequence[Difference]) -> Difference:
    return Difference(sum(d.voxels for d in differences), min(d.dice for d in differences))


def _cells(found: Difference) -> list[str]:
    return [str(found.voxels), f"{found.dice:.5f}"]


def _costs(model: Model, scan: Path, repeats: int, work: Path) -> dict[str, Cost]:
    variants = (DEFAULT, *VARIANTS)
    runs: dict[str, list[Run]] = {v.name: [] for v in variants}
    for _ in range(repeats):  # in turn, so that a drift of the machine meets all of them
        for variant in variants:
            command = _command(variant, model, scan, work / "timed.nii.gz")
            runs[variant.name].append(measured(command, _environment(variant)))
    return {
        v.name: Cost(
            statistics.median(_network_s(r.output) for r in runs[v.name]),
            statistics.median(r.wall_s for r in runs[v.name]),
            statistics.median(r.peak_rss_mib for r in runs[v.name]),
            _windows(model.config, scan, body=v is CROP_TO_BODY),
        )
        for v in variants
    }


def _masks(model: Model, scan: Path, work: Path) -> Masks:
    def mask(variant: Variant) -> NDArray[Any]:
        output = work / "mask.nii.gz"
        measured(_command(variant, model, scan, output), _environment(variant))
        return volumes.read(output).voxels_zyx

    exact, default, in_float32 = mask(EXACT), mask(DEFAULT), mask(IN_FLOAT32)
    variants = {IN_FLOAT32.name: difference(in_float32, default)}
    others = (v for v in VARIANTS if v is not IN_FLOAT32)
    variants |= {v.name: difference(mask(v), default) for v in others}
    return Masks(
        scan.name,
        exact.size,
        int(np.count_nonzero(exact)),
        difference(default, exact),
        difference(in_float32, exact),
        variants,
    )


def _command(variant: Variant, model: Model, scan: Path, output: Path) -> list[str | Path]:
    files: list[str | Path] = ["--input", scan, "--output", output, "--model", model.folder]
    return [sys.executable, *variant.python, *files, "--device", "cpu"]


def _environment(variant: Variant) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), **variant.environment}


def _network_s(output: str) -> float:
    """The seconds that the app says its network took."""
    (seconds,) = re.findall(r" network ([\d.]+) s,", output)
    return float(seconds)


def _windows_saved(models: Sequence[Model], scan: Path) -> list[tuple[int, int]]:
    return [(_windows(m.config, scan, False), _windows(m.config, scan, True)) for m in models]


def _windows(config: ModelConfig, scan: Path, body: bool) -> int:
    image = read_image(scan)
    prepared = prepare([image.voxels], image.spacing_zyx, config, exact=False, body=body)
    return window_count(prepared.shape, config.patch_size, STEP_SIZE)


def _huge_pages() -> str:
    """The kernel's choice, in its own word: always, madvise (to who asks) or never."""
    if not HUGE_PAGES.is_file():
        return "never"
    (chosen,) = re.findall(r"\[(\w+)\]", HUGE_PAGES.read_text())
    return str(chosen)


if __name__ == "__main__":
    sys.exit(main())
