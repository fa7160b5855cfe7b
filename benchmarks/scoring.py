"""Surface Dice against DeepMind's surface-distance: time, memory, and whether they agree.

``python -m benchmarks.scoring --output runs/benchmark`` scores made-up 512 x 512 x 300 pairs, each
in a fresh process, and many small random pairs, and writes a Markdown table. DeepMind's package is
installed for tests and benchmarks only (the extra `dev`).
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from surface_distance import metrics as deepmind  # type: ignore[import-untyped]

from benchmarks.command_line import parser, publish
from benchmarks.machine import description
from evaluation.scoring.surface import surface_dice
from evaluation.tables.markup import markdown_table

SHAPE_ZYX = (300, 512, 512)
SPACING_ZYX = (1.0, 0.7, 0.7)
TOLERANCE_MM = 2.0
RANDOM_PAIRS = 1000
REPEATS = 3  # of the fast ones; DeepMind's runs once
# Number and radii (from, to, in mm) of the lesions.
LESIONS: dict[str, tuple[int, tuple[float, float]]] = {
    "one small lesion": (1, (8.0, 8.0)),
    "40 scattered lesions": (40, (4.0, 15.0)),
    "one lesion of 15 cm": (1, (75.0, 75.0)),
}

Mask = NDArray[np.bool_]
SurfaceDice = Callable[[Mask, Mask, Sequence[float], float], float]


@dataclass(frozen=True)
class Cost:
    """One call: its value, its wall time, and by how much it raised the process's peak memory."""

    nsd: float
    seconds: float
    mib: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    args = parser("scoring", __doc__).parse_args(arguments)
    head = ("pair", "this: s", "MiB", "DeepMind: s", "MiB", "times faster", "NSD", "difference")
    report = (
        f"512 x 512 x 300 voxels of 0.7 x 0.7 x 1 mm, tolerance 2 mm, {description()}. Each "
        f"call in a fresh process; this: median of {REPEATS}. Memory: what the call adds to "
        "the two masks (150 MiB).\n\n"
        + markdown_table(head, [_row(name, *lesions) for name, lesions in LESIONS.items()])
        + f"\n\nLargest difference over {RANDOM_PAIRS} random pairs (up to 24 voxels an axis,"
        f" spacing 0.4 to 8 mm, tolerance 0 to 10 mm): {_worst_difference():.1e}."
    )
    publish(report, args.output / "scoring.md")
    return 0


def _row(name: str, count: int, radii_mm: tuple[float, float]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        _write_pair(Path(folder), count, radii_mm)
        ours = [_in_fresh_process(surface_dice, folder) for _ in range(REPEATS)]
        theirs = _in_fresh_process(by_deepmind, folder)
    seconds = statistics.median(cost.seconds for cost in ours)
    return [
        name,
        f"{seconds:.3f}",
        f"{statistics.median(cost.mib for cost in ours):.0f}",
        f"{theirs.seconds:.2f}",
        f"{theirs.mib:.0f}",
        f"{theirs.seconds / seconds:.0f}",
        f"{theirs.nsd:.4f}",
        f"{abs(ours[0].nsd - theirs.nsd):.1e}",
    ]


def _write_pair(folder: Path, count: int, radii_mm: tuple[float, float]) -> None:
    """Balls as the reference; balls with bumps, moved a little, as the prediction."""
    random = np.random.default_rng(0)
    pair = np.zeros((2, *SHAPE_ZYX), np.bool_)
    size_mm = np.multiply(SHAPE_ZYX, SPACING_ZYX)
    for _ in range(count):
        radius_mm = random.uniform(*radii_mm)
        margin_mm = np.minimum(1.3 * radius_mm, size_mm / 2)
        centre_mm = random.uniform(margin_mm, size_mm - margin_mm)
        _add_ball(pair[0], centre_mm, radius_mm, 0.0)
        _add_ball(pair[1], centre_mm + random.uniform(-2, 2, 3), radius_mm, 0.1)
    for name, mask in zip(("prediction", "reference"), pair, strict=True):
        np.save(folder / f"{name}.npy", mask)


def _add_ball(mask: Mask, centre_mm: NDArray[np.float64], radius_mm: float, bump: float) -> None:
    low = np.maximum((centre_mm - 1.2 * radius_mm) / SPACING_ZYX, 0).astype(int)
    high = ((centre_mm + 1.2 * radius_mm) / SPACING_ZYX).astype(int) + 2
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    part = mask[box]
    z, y, x = (
        (index + start) * step - centre
        for index, start, step, centre in zip(
            np.ogrid[tuple(slice(n) for n in part.shape)], low, SPACING_ZYX, centre_mm, strict=True
        )
    )
    part |= np.sqrt(z * z + y * y + x * x) < radius_mm * (1 + bump * np.sin(5 * np.arctan2(y, x)))


def by_deepmind(
    prediction: Mask, reference: Mask, spacing_zyx: Sequence[float], tolerance_mm: float
) -> float:
    """Do the same with DeepMind's two functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        distances = deepmind.compute_surface_distances(reference, prediction, spacing_zyx)
    return float(deepmind.compute_surface_dice_at_tolerance(distances, tolerance_mm))


def _in_fresh_process(function: SurfaceDice, folder: str) -> Cost:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (function, folder))


def _measure(function: SurfaceDice, folder: str) -> Cost:
    prediction, reference = (
        np.load(Path(folder) / f"{name}.npy") for name in ("prediction", "reference")
    )
    # Not getrusage's ru_maxrss: it starts with the peak of the process that started this one.
    before_kib = _status_kib("VmRSS")
    start = time.perf_counter()
    nsd = function(prediction, reference, SPACING_ZYX, TOLERANCE_MM)
    seconds = time.perf_counter() - start
    return Cost(nsd, seconds, (_status_kib("VmHWM") - before_kib) / 1024)


def _status_kib(field: str) -> int:
    """VmRSS, this process's memory, or VmHWM, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _worst_difference() -> float:
    """Blobs against similar blobs, of any size and often at the border."""
    random = np.random.default_rng(0)
    worst = 0.0
    for _ in range(RANDOM_PAIRS):
        fields = random.standard_normal((2, *random.integers(2, 25, 3)))
        fields = gaussian_filter(fields, (0, *random.uniform(0, 3, 3)))
        fields[1] = fields[0] + random.uniform(0, 1) * fields[1]
        prediction, reference = (
            field > np.quantile(field, random.uniform(0.4, 0.95)) for field in fields
        )
        spacing_zyx = random.choice((0.4, 0.5, 0.7, 0.8, 1.0, 2.5, 5.0, 8.0), 3).tolist()
        tolerance_mm = random.choice((0.0, 0.5, 1.0, 2.0, 2.5, 10.0))
        ours = surface_dice(prediction, reference, spacing_zyx, tolerance_mm)
        theirs = by_deepmind(prediction, reference, spacing_zyx, tolerance_mm)
        worst = max(worst, abs(ours - theirs))
    return worst


if __name__ == "__main__":
    sys.exit(main())
