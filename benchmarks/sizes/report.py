"""The Markdown report of the benchmark of published sizes. Pure: measurements in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.programs import DEVICE, STAGES
from benchmarks.sizes.record import APP, NNUNET, PREVIOUS, STAGED, Measurement, medians
from benchmarks.sizes.scans import SPACING_RULE, slice_spacing_mm
from benchmarks.sizes.targets import UNMEASURED, cpu_targets, gpu_targets, ratio, targets_table
from evaluation.tables.markup import markdown_table

TITLES = {APP: "app", PREVIOUS: "previous", NNUNET: "nnU-Net"}
FAILED = "failed"


@dataclass(frozen=True)
class Column:
    """A column of the table: title and one cell per scan."""

    title: str
    cells: list[str]


@dataclass(frozen=True)
class Setting:
    """What the report says of where and how it was measured.

    networks: name to title. programs: those that were asked for, among APP, PREVIOUS, NNUNET.
    versions: of each program, in words. staged_slices: the scan whose stages were timed in nnU-Net.
    """

    machine: str
    on_gpu: bool
    scan: str
    repeats: int
    networks: dict[str, str]
    slices: Sequence[int]
    programs: Sequence[str]
    versions: dict[str, str]
    staged_slices: int


class Report:
    """Lays out measurements."""

    def __init__(self, setting: Setting, measurements: Sequence[Measurement]) -> None:
        self._setting, self._measurements = setting, measurements

    def text(self) -> str:
        """The whole report."""
        setting = self._setting
        lines = [self._introduction(), ""]
        for network, title in setting.networks.items():
            lines += [f"**{title}**", "", _table(self._columns(network))]
            lines += ["", *self._staged(network)]
        find = gpu_targets if setting.on_gpu else cpu_targets
        lines += ["**Targets**", "", targets_table(find(self._case)), "", *self._remarks()]
        return "\n".join(lines).rstrip() + "\n"

    def _case(self, network: str, slices: int, program: str) -> Measurement:
        return medians(Measurement(network, slices, program, 0), self._measurements)

    def _introduction(self) -> str:
        setting = self._setting
        versions = ", ".join(f"{TITLES[p]} {setting.versions[p]}" for p in setting.programs)
        runs = "one cold process each" if setting.repeats == 1 else f"medians of {setting.repeats}"
        runs += "" if setting.repeats == 1 else " cold processes"
        if setting.on_gpu:
            memory = (
                "Peak and area of GPU memory by NVML every 20 ms, net of the second before, CUDA's "
                "context included: a peak is a lower bound."
            )
        else:
            memory = (
                "Peak: the largest resident set of any one process, which favours nnU-Net, whose "
                f"work is spread over several. Area of GPU memory: {UNMEASURED}."
            )
        return (
            f"{setting.machine}; {versions}; {runs}, files in the page cache; random weights. "
            f"Scans of 512 x 512 x N voxels, interpolated along z from {setting.scan}: "
            f"{SPACING_RULE}. Seconds are wall time from process start to end; start-up to write "
            f"are the app's own stages. {memory}"
        )

    def _columns(self, network: str) -> list[Column]:
        setting = self._setting
        rows = [{p: self._case(network, n, p) for p in TITLES} for n in setting.slices]
        apps = [row[APP] for row in rows]
        scans = [f"{n} x {slice_spacing_mm(n):g} mm" for n in setting.slices]
        columns = [
            Column("slices", scans),
            Column("windows", [_cell(a, a.windows, "{:d}") for a in apps]),
            Column("step", [_cell(a, a.step, "{:.3g}") for a in apps]),
            *self._compared(rows, "wall_s", "s", "{:.2f}"),
        ]
        device = [DEVICE] if any(DEVICE in a.stages for a in apps) else []
        for stage in ("ready", *device, *STAGES):
            title = "start-up" if stage == "ready" else stage
            columns.append(Column(title, [_cell(a, a.stages.get(stage), "{:.2f}") for a in apps]))
        peak = "peak_vram_mib" if setting.on_gpu else "peak_rss_mib"
        columns += self._compared(rows, peak, "MiB", "{:.0f}")
        if setting.on_gpu:
            columns += self._compared(rows, "area_mib_s", "MiB s", "{:.0f}")
        return columns

    def _compared(
        self, rows: list[dict[str, Measurement]], name: str, unit: str, form: str
    ) -> list[Column]:
        """A column for each program, and the app's share of nnU-Net's."""
        programs = self._setting.programs
        columns = [
            Column(f"{TITLES[p]} {unit}", [_cell(r[p], getattr(r[p], name), form) for r in rows])
            for p in programs
        ]
        if APP in programs and NNUNET in programs:
            shares = [ratio(getattr(r[APP], name), getattr(r[NNUNET], name)) for r in rows]
            columns.append(
                Column("app / nnU-Net", ["" if s is None else f"{s:.3f}" for s in shares])
            )
        return columns

    def _staged(self, network: str) -> list[str]:
        """What nnU-Net takes beside the network, where that was measured."""
        slices = self._setting.staged_slices
        app, nnunet, staged = (self._case(network, slices, p) for p in (APP, NNUNET, STAGED))
        network_s = staged.stages.get("network")
        theirs_s = nnunet.rest_s(network_s)
        if network_s is None or theirs_s is None:
            return []
        ours_s = app.rest_s(app.stages.get("network"))
        ours = UNMEASURED if ours_s is None else f"{ours_s:.2f} s"
        return [
            f"{slices} slices without the network: nnU-Net {theirs_s:.2f} s, app {ours}. nnU-Net's "
            f"network took {network_s:.2f} s in a sequential run of its own, on this scan only: "
            "timing its stages doubles what it takes.",
            "",
        ]

    def _remarks(self) -> list[str]:
        """Failures and notes, each once."""
        found: dict[str, list[str]] = {}
        for m in self._measurements:
            errors = [f"failed: {m.error}"] if m.error else []
            for text in [*errors, *m.notes]:
                found.setdefault(text, []).append(f"{m.network} {m.slices} {m.program}")
        return [f"- {', '.join(dict.fromkeys(where))}: {text}" for text, where in found.items()]


def _cell(of: Measurement, value: float | None, form: str) -> str:
    if value is None:
        return FAILED if of.error else UNMEASURED
    return form.format(value)


def _table(columns: Sequence[Column]) -> str:
    rows = zip(*(c.cells for c in columns), strict=True)
    return markdown_table([c.title for c in columns], rows)
