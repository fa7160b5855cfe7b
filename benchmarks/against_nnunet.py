"""The app against nnU-Net: same machine, weights and real scan, cold processes, in one run.

``python -m benchmarks.against_nnunet --output runs/benchmark`` makes the published 5.6M network
with random weights (speed does not depend on them, though masks are then everywhere, which is the
worst case for restoring), takes the two demonstration scans, and writes a Markdown table.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command_line import parser, publish
from benchmarks.machine import Run, description, measured, peak_mib
from benchmarks.programs import (
    DEVICE,
    ROOT,
    STAGES,
    Command,
    app_command,
    app_stages,
    nnunet_command,
    nnunet_environment,
    nnunet_stages,
    nnunet_stages_command,
)
from benchmarks.published import HUANG, Weights, make_weights
from evaluation import volumes
from evaluation.numbers import positive
from evaluation.tables.markup import markdown_table
from examples.samples import NAMES, fetch


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("against_nnunet", __doc__)
    options.add_argument(
        "--repeats", type=positive(int), default=3, help="of each run; medians are shown"
    )
    options.add_argument("--case", choices=NAMES, default=NAMES[0], help="which demonstration scan")
    args = options.parse_args(arguments)
    (sample,) = fetch(ROOT / "runs" / "samples", names=[args.case])
    work = args.output / "work"
    shutil.rmtree(work, ignore_errors=True)
    report = _compare(make_weights(HUANG, work), work, sample.scan, args.repeats)
    publish(report, args.output / "against_nnunet.md")
    return 0


def _compare(weights: Weights, work: Path, scan: Path, repeats: int) -> str:
    environment, path = nnunet_environment(work), {"PYTHONPATH": str(ROOT)}
    inputs = work / "inputs"
    inputs.mkdir()
    shutil.copy(scan, inputs)
    whole: dict[str, tuple[Command, dict[str, str]]] = {
        "nnU-Net": (nnunet_command(weights.trained, inputs, work / "nnunet", "cpu"), environment),
        "app --exact": (_app(weights, work, scan, "--exact"), path),
        "app": (_app(weights, work, scan), path),
    }
    stages = nnunet_stages_command(weights.trained, scan, work / "staged", "cpu")
    runs: dict[str, list[Run]] = {name: [] for name in whole}
    staged: list[Run] = []
    imports: list[float] = []
    for _ in range(repeats):  # in turn, so that a drift of the machine meets all of them
        imports.append(measured([sys.executable, "-c", "import torch"], {}).wall_s)
        staged.append(measured(stages, environment))
        for name, command in whole.items():
            runs[name].append(measured(*command))
    columns = {
        name: _median_stages([app_stages(r.output) for r in runs[name]]) for name in list(whole)[1:]
    }
    columns = {"nnU-Net": _median_stages([nnunet_stages(r.output) for r in staged]), **columns}
    walls = {name: statistics.median(r.wall_s for r in of) for name, of in runs.items()}
    totals = {name: (walls[name], peak_mib(*command)) for name, command in whole.items()}
    differ = [
        _voxels_that_differ(work / "nnunet" / scan.name.replace("_0000", ""), work / mask)
        for mask in ("app--exact.nii.gz", "app.nii.gz")
    ]
    return _table(scan, columns, totals, differ, statistics.median(imports), repeats)


def _voxels_that_differ(reference: Path, mask: Path) -> int:
    a, b = (volumes.read(f).voxels_zyx for f in (reference, mask))
    return int(np.count_nonzero(a != b))


def _table(
    scan: Path,
    columns: dict[str, dict[str, float]],
    totals: dict[str, tuple[float, float]],
    differ: list[int],
    import_s: float,
    repeats: int,
) -> str:
    def row(label: str, values: list[float], form: str = "{:.2f}") -> list[str]:
        return [label, *(form.format(v) for v in values)]

    names = list(columns)
    ready = [columns[n]["ready"] for n in names]
    to_first = ("ready", DEVICE, "read", "preprocess")
    first = [sum(columns[n].get(s, 0.0) for s in to_first) for n in names]
    rest = [totals[n][0] - columns[n]["network"] for n in names]
    in_imports = f"the same, in units of `import torch` ({import_s:.2f} s)"
    rows = [
        row("start-up (process start until ready)", ready),
        *(row(stage, [columns[n][stage] for n in names]) for stage in STAGES),
        row("whole process", [totals[n][0] for n in names]),
        row("whole process without the network", rest),
        row("the same, nnU-Net : this", [rest[0] / r for r in rest], "{:.1f}x"),
        row("process start until first patch", first),
        row(in_imports, [f / import_s for f in first], "{:.2f}x"),
        row("peak memory, MiB", [totals[n][1] for n in names], "{:.0f}"),
        row("voxels that differ from nnU-Net's mask", [0, *differ], "{:.0f}"),
    ]
    return (
        f"{scan.name}, {description()}; medians of {repeats} cold processes; seconds. The app "
        "reads while it imports torch: `read` is what then remains.\n\n"
        + markdown_table(["stage", *names], rows)
    )


def _app(weights: Weights, work: Path, scan: Path, *options: str) -> Command:
    mask = work / f"app{''.join(options)}.nii.gz"
    return app_command(weights.model, scan, mask, "cpu", *options)


def _median_stages(runs: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.median(r[stage] for r in runs) for stage in runs[0]}


if __name__ == "__main__":
    sys.exit(main())
