"""The targets of the benchmark of published sizes, and whether measurements meet them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.sizes.record import APP, NNUNET, STAGED, Measurement
from benchmarks.sizes.scans import CPU_SLICES
from evaluation.tables.markup import markdown_table

GPU_SLICES = 554
Cases = Callable[[str, int, str], Measurement]  # of network, slices and program
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Published:
    """What a paper reports of the longest scan, and what is asked of the app there."""

    wall_s: float
    peak_mb: float
    area: float
    asked_wall_s: float
    asked_peak_mib: float
    asked_area_mib_s: float


PAPERS = {
    "huang": Published(24.57, 4639, 113978, 4, 1300, 3000),
    "dkfz": Published(73.8, 6836, 388930, 12, 2200, 18000),
}
FASTER, SMALLER_AREA = 5.0, 10.0  # than nnU-Net's own predictor
CPU_WALL, CPU_REST, CPU_PEAK = 0.35, 0.15, 0.5  # of nnU-Net's


@dataclass(frozen=True)
class Target:
    """One demand: `value` is what was measured, which `bound` bounds from above or below."""

    what: str
    bound: float
    unit: str
    value: float | None
    published: str = ""
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Return met, missed or not measured."""
        if self.value is None:
            return UNMEASURED
        good = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "met" if good else "missed"


def targets_table(targets: list[Target]) -> str:
    """Return a table in Markdown with a row for each target."""
    rows = []
    for t in targets:
        bound = f"at {'least' if t.at_least else 'most'} {t.bound:g}{t.unit}"
        value = UNMEASURED if t.value is None else f"{_digits(t.value)}{t.unit}"
        rows.append((t.what, bound, t.published, value, t.verdict))
    head = ("target", "asked for", "published", "measured", "")
    return markdown_table(head, rows, words=(0, 1, 2, 4))


def cpu_targets(cases: Cases) -> list[Target]:
    """Against nnU-Net's cold process on the same CPU, Huang's network."""
    app, nnunet = (cases("huang", CPU_SLICES, p) for p in (APP, NNUNET))
    staged = cases("huang", CPU_SLICES, STAGED)
    rest_s = app.rest_s(app.stages.get("network"))
    theirs_s = nnunet.rest_s(staged.stages.get("network"))
    rest = "everything but the network, of nnU-Net's"
    asked = (
        ("whole process, of nnU-Net's", CPU_WALL, app.wall_s, nnunet.wall_s),
        (f"{rest} everything but the network", CPU_REST, rest_s, theirs_s),
        (f"{rest} whole process", CPU_REST, rest_s, nnunet.wall_s),
        ("peak RSS, of nnU-Net's", CPU_PEAK, app.peak_rss_mib, nnunet.peak_rss_mib),
    )
    scan = f"huang, 512 x 512 x {CPU_SLICES}: "
    return [Target(scan + what, most, "x", ratio(a, b)) for what, most, a, b in asked]


def gpu_targets(cases: Cases) -> list[Target]:
    """The papers' longest scan, both networks, and nnU-Net on the same GPU."""
    found = []
    for network, paper in PAPERS.items():
        app, nnunet = (cases(network, GPU_SLICES, p) for p in (APP, NNUNET))
        scan = f"{network}, 512 x 512 x {GPU_SLICES}: "
        wall, peak, area = f"{paper.wall_s:g} s", f"{paper.peak_mb:g} MB", f"{paper.area:g}"
        vram = f"{scan}peak VRAM, context included"
        faster, smaller = ratio(nnunet.wall_s, app.wall_s), ratio(nnunet.area_mib_s, app.area_mib_s)
        found += [
            Target(f"{scan}whole process", paper.asked_wall_s, " s", app.wall_s, wall),
            Target(vram, paper.asked_peak_mib, " MiB", app.peak_vram_mib, peak),
            Target(f"{scan}area", paper.asked_area_mib_s, " MiB s", app.area_mib_s, area),
            Target(f"{scan}nnU-Net's time : the app's", FASTER, "x", faster, at_least=True),
            Target(f"{scan}nnU-Net's area : the app's", SMALLER_AREA, "x", smaller, at_least=True),
        ]
    return found


def ratio(a: float | None, b: float | None) -> float | None:
    """a / b where both were measured."""
    return None if a is None or b is None or b <= 0 else a / b


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
