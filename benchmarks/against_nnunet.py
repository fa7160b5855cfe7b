"""The app against nnU-Net: same machine, weights and real scan, cold processes, in one run.

``python -m benchmarks.against_nnunet --output runs/benchmark`` makes the published 5.6M network
with random weights (speed does not depend on them, though masks are then everywhere, which is the
worst case for restoring), takes the two demonstration scans, and writes a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import Run, description, peak_mib, timed
from evaluation import volumes
from evaluation.samples import fetch
from tests.nnunet_models import HUANG_5_6M, dataset, plans, run_oracle
from training.export import export

ROOT = Path(__file__).resolve().parent.parent
NNUNET = ROOT / ".venv-nnunet" / "bin"
Command = tuple[list[str | Path], dict[str, str]]  # and its environment
STAGES = ("read", "preprocess", "network", "restore", "write")
# Huang's published plans: 3x2x2 mm, patch 96x128x128, four stages, 5.603M parameters.
SPACING = (3.0, 2.0, 2.0)
PATCH_SIZE = (96, 128, 128)
INTENSITIES = {
    "mean": -52.232,
    "std": 268.799,
    "percentile_00_5": -900.0,
    "percentile_99_5": 619.0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_nnunet")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "benchmark")
    parser.add_argument("--repeats", type=int, default=3, help="of each run; medians are shown")
    parser.add_argument("--case", default="lung1", help="which demonstration scan")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    (sample,) = (s for s in fetch(ROOT / "runs" / "samples") if s.name == args.case)
    work = args.output / "work"
    shutil.rmtree(work, ignore_errors=True)
    trained = _random_trained_folder(work)
    export([trained], work / "model")
    report = _compare(trained, work, sample.scan, args.repeats)
    (args.output / "against_nnunet.md").write_text(report)
    print(report)
    return 0


def _compare(trained: Path, work: Path, scan: Path, repeats: int) -> str:
    environment = {k: str(work) for k in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    whole: dict[str, Command] = {
        "nnU-Net": (_nnunet_predict(trained, work, scan), environment),
        "app --exact": (_app(work, scan, "--exact"), {"PYTHONPATH": str(ROOT)}),
        "app": (_app(work, scan), {"PYTHONPATH": str(ROOT)}),
    }
    script = ROOT / "benchmarks" / "nnunet_stages.py"
    stages = [NNUNET / "python", script, trained, scan, work / "staged"]
    runs: dict[str, list[Run]] = {name: [] for name in whole}
    staged: list[Run] = []
    imports: list[float] = []
    for _ in range(repeats):  # in turn, so that a drift of the machine meets all of them
        imports.append(timed([sys.executable, "-c", "import torch"]).wall_s)
        staged.append(timed(stages, environment))
        for name, command in whole.items():
            runs[name].append(timed(*command))
    columns = {
        name: _median_stages([_app_stages(r) for r in runs[name]]) for name in list(whole)[1:]
    }
    columns = {"nnU-Net": _median_stages([_nnunet_stages(r) for r in staged]), **columns}
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
    def row(label: str, values: list[float], form: str = "{:.2f}") -> str:
        return f"| {label} | " + " | ".join(form.format(v) for v in values) + " |"

    names = list(columns)
    ready = [columns[n]["ready"] for n in names]
    first = [sum(columns[n][s] for s in ("ready", "read", "preprocess")) for n in names]
    rest = [totals[n][0] - columns[n]["network"] for n in names]
    lines = [
        f"{scan.name}, {description()}; medians of {repeats} cold processes; seconds. The app "
        "reads while it imports torch: `read` is what then remains.",
        "",
        "| stage | " + " | ".join(names) + " |",
        "|---|" + "---:|" * len(names),
        row("start-up (process start until model is loaded)", ready),
        *(row(stage, [columns[n][stage] for n in names]) for stage in STAGES),
        row("whole process", [totals[n][0] for n in names]),
        row("whole process without the network", rest),
        row("the same, nnU-Net : this", [rest[0] / r for r in rest], "{:.1f}x"),
        row("process start until first patch", first),
        row(
            f"the same, in units of `import torch` ({import_s:.2f} s)",
            [f / import_s for f in first],
            "{:.2f}x",
        ),
        row("peak memory, MiB", [totals[n][1] for n in names], "{:.0f}"),
        row("voxels that differ from nnU-Net's mask", [0, *differ], "{:.0f}"),
    ]
    return "\n".join(lines) + "\n"


def _nnunet_predict(trained: Path, work: Path, scan: Path) -> list[str | Path]:
    """nnU-Net's own command line, with its worker processes."""
    inputs = work / "inputs"
    inputs.mkdir(exist_ok=True)
    shutil.copy(scan, inputs)
    program = NNUNET / "nnUNetv2_predict_from_modelfolder"
    files: list[str | Path] = ["-i", inputs, "-o", work / "nnunet", "-m", trained, "-f", "0"]
    return [program, *files, "-device", "cpu", "--disable_tta", "--disable_progress_bar"]


def _app(work: Path, scan: Path, *options: str) -> list[str | Path]:
    output = work / f"app{''.join(options)}.nii.gz"
    files: list[str | Path] = ["--input", scan, "--output", output, "--model", work / "model"]
    return [sys.executable, "-m", "app", *files, "--device", "cpu", *options]


def _nnunet_stages(run: Run) -> dict[str, float]:
    stages: dict[str, float] = json.loads(run.output.rpartition("STAGES ")[2])
    return stages


def _app_stages(run: Run) -> dict[str, float]:
    """The stages that the app logs itself."""
    stages = {s: float(t) for s, t in re.findall(r"(\w+) ([\d.]+) s[,\s]", run.output)}
    (ready,) = re.findall(r"ready ([\d.]+) s after process start", run.output)
    return {**{s: stages[s] for s in STAGES}, "ready": float(ready)}


def _median_stages(runs: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.median(r[stage] for r in runs) for stage in runs[0]}


def _random_trained_folder(work: Path) -> Path:
    """The published 5.6M network as nnU-Net's trainer would leave it, with random weights."""
    huang = plans(SPACING, PATCH_SIZE, architecture=HUANG_5_6M)
    huang["foreground_intensity_properties_per_channel"]["0"] |= INTENSITIES
    trained = work / "trained"
    trained.mkdir(parents=True)
    job = {
        "do": "build",
        "folder": str(trained),
        "plans": huang,
        "dataset": dataset(),
        "configuration": "3d_fullres",
        "folds": ["0"],
        "seed": 0,
        "mirror_axes": [0, 1, 2],
    }
    run_oracle([job], work)
    return trained


if __name__ == "__main__":
    sys.exit(main())
