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

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from benchmarks.machine import description, timed
from evaluation import volumes
from evaluation.metrics import dice
from evaluation.samples import fetch

ROOT = Path(__file__).resolve().parent.parent


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
            "| scan | voxels | lesion voxels, `--exact` | voxels that differ | Dice |",
            "|---|---:|---:|---:|---:|",
            *rows,
        ]
    )
    (args.output / "cost_of_default.md").write_text(report + "\n")
    print(report)
    return 0


def _compare(scan: Path, folder: Path) -> str:
    masks: list[NDArray[np.uint8]] = []
    options: list[str]
    for options in (["--exact"], []):
        output = folder / f"{len(masks)}.nii.gz"
        files = ("--input", str(scan), "--output", str(output))
        command = [sys.executable, "-m", "app", *files, "--device", "cpu", *options]
        timed(command, {"PYTHONPATH": str(ROOT)})
        masks.append(sitk.GetArrayFromImage(volumes.read(output)))
    exact, default = masks
    differ = np.count_nonzero(exact != default)
    return (
        f"| {scan.name} | {exact.size} | {np.count_nonzero(exact)} | {differ} "
        f"| {dice(default, exact):.5f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
