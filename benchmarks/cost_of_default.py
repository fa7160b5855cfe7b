"""What the app's default costs against --exact: voxels that differ and Dice, on real scans.

``python -m benchmarks.cost_of_default [--scans FOLDER]`` segments the two demonstration scans
(and those of FOLDER) both ways with the model in weights/ and writes a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import description, timed
from evaluation import volumes
from evaluation.samples import fetch
from evaluation.scoring.metrics import dice

ROOT = Path(__file__).resolve().parent.parent
APP = ["-m", "app"]
# The app as on a CPU without bfloat16.
APP_IN_FLOAT32 = [
    "-c",
    "import sys; from app import __main__, loading; loading.cpu_has_bfloat16 = lambda: False; "
    "sys.exit(__main__.main())",
]
VARIANTS = ([*APP_IN_FLOAT32, "--exact"], APP, APP_IN_FLOAT32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost_of_default")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "benchmark")
    parser.add_argument("--scans", type=Path, help="a folder of more scans")
    args = parser.parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    scans = [s.scan for s in fetch(ROOT / "runs" / "samples")]
    scans += sorted(args.scans.glob("*.nii.gz")) if args.scans else []
    with tempfile.TemporaryDirectory() as folder:
        rows = [_compare(scan, Path(folder)) for scan in scans]
    report = "\n".join(
        [
            f"Model in weights/, {description()}.",
            "",
            "| scan | voxels | lesion voxels, `--exact` | voxels that differ | Dice "
            "| without bfloat16: voxels that differ | Dice |",
            "|---|---:|---:|---:|---:|---:|---:|",
            *rows,
        ]
    )
    (args.output / "cost_of_default.md").write_text(report + "\n")
    print(report)
    return 0


def _compare(scan: Path, folder: Path) -> str:
    masks: list[NDArray[Any]] = []
    for variant in VARIANTS:
        output = folder / f"{len(masks)}.nii.gz"
        files = ("--input", str(scan), "--output", str(output))
        timed([sys.executable, *variant, *files, "--device", "cpu"], {"PYTHONPATH": str(ROOT)})
        masks.append(volumes.read(output).voxels_zyx)
    exact = masks[0]
    costs = [f"{np.count_nonzero(exact != m)} | {dice(m, exact):.5f}" for m in masks[1:]]
    return f"| {scan.name} | {exact.size} | {np.count_nonzero(exact)} | {' | '.join(costs)} |"


if __name__ == "__main__":
    sys.exit(main())
