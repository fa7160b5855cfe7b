"""Does memory grow with a scan's length? Peak of the app's command line beside the scan's voxels.

``python -m benchmarks.memory --output runs/benchmark`` segments scans of 512 x 512 x N voxels with
the model cpu-small in cold processes on the CPU, and writes a Markdown table. Each scan is also
segmented with glibc mapping every block from 1 MiB on by itself: then what remains of freed blocks
in its heap does not count, only what the app holds.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence

from benchmarks.command_line import parser, publish
from benchmarks.machine import Run, description, measured
from benchmarks.programs import ROOT, app_command
from benchmarks.sizes.scans import SPACING_RULE, make_scan
from benchmarks.sizes.versions import app_version
from evaluation.numbers import positive
from evaluation.tables.markup import markdown_table
from examples.samples import fetch

_MODEL = ROOT / "weights" / "cpu-small"
_SLICES = (100, 300, 600, 1200)
_VOXELS_MIB = 512 * 512 * 2 / 2**20  # of a slice, int16
_ALLOCATORS = {"": "", ", blocks mapped": str(2**20)}  # MALLOC_MMAP_THRESHOLD_, bytes

Runs = dict[int, dict[str, list[Run]]]  # by slices and by the name of the allocator


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("memory", __doc__)
    options.add_argument("--slices", nargs="+", type=positive(int), default=_SLICES, metavar="N")
    options.add_argument("--repeats", type=positive(int), default=3, help="of each run")
    args = options.parse_args(arguments)
    (sample,) = fetch(ROOT / "runs" / "samples", names=["lung1"])
    runs: Runs = {}
    for slices in args.slices:
        scan = make_scan(sample.scan, slices, args.output / "memory")
        command = app_command(_MODEL, scan, args.output / "memory.nii.gz", "cpu")
        runs[slices] = {
            name: [measured(command, _environment(threshold)) for _ in range(args.repeats)]
            for name, threshold in _ALLOCATORS.items()
        }
    publish(table(runs, app_version(), args.repeats), args.output / "memory.md")
    return 0


def _environment(threshold: str) -> dict[str, str]:
    return {"MALLOC_MMAP_THRESHOLD_": threshold} if threshold else {}


def table(runs: Runs, version: str, repeats: int) -> str:
    """The report, as Markdown: medians, and in brackets the least and the most."""
    head = ["slices", *(f"{what}{name}" for name in _ALLOCATORS for what in ("MiB", "CPU s"))]
    rows = []
    for slices, by_allocator in runs.items():
        cells = [str(slices)]
        for found in by_allocator.values():
            rest = sorted(run.peak_rss_mib - slices * _VOXELS_MIB for run in found)
            cells.append(f"{statistics.median(rest):.0f} ({rest[0]:.0f} to {rest[-1]:.0f})")
            cells.append(f"{statistics.median(run.cpu_s for run in found):.1f}")
        rows.append(cells)
    return (
        f"{description()}; app {version}; model cpu-small, scans of 512 x 512 x N voxels, "
        f"interpolated along z from lung1: {SPACING_RULE}. Peak resident memory of a cold process "
        f"less the voxels as int16: median of {repeats}, in brackets the least and the most.\n\n"
        + markdown_table(head, rows)
    )


if __name__ == "__main__":
    sys.exit(main())
