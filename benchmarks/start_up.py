"""What starting costs: the app, the app with all of torch, and the app of an earlier commit.

``python -m benchmarks.start_up --output runs/benchmark [--previous COMMIT]`` segments the
demonstration scan lung1 with the model cpu-small in cold processes on the CPU, in turn, and writes
a Markdown table.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.lean.start import FULL_IMPORT, left_out
from benchmarks.command_line import exit_code, parser, publish
from benchmarks.machine import description, measured
from benchmarks.programs import DEVICE, ROOT, Command, app_command, app_stages
from benchmarks.sizes.versions import app_version, previous_app
from evaluation.errors import EvaluationError
from evaluation.numbers import positive
from evaluation.tables.markup import markdown_table
from examples.samples import fetch

_MODEL = ROOT / "weights" / "cpu-small"
_IMPORT = "import time, numpy; began = time.process_time()\n{}\nprint(time.process_time() - began)"
_FULL, _LEAN = (
    _IMPORT.format("import torch"),
    _IMPORT.format(
        "from app.lean.start import torch_import\nwith torch_import(lean=True): import torch"
    ),
)


@dataclass(frozen=True)
class Program:
    """One of those that are compared."""

    name: str
    environment: dict[str, str]
    importing: str  # the Python that imports torch as it does, and prints CPU seconds


@dataclass(frozen=True)
class Start:
    """What one cold process took, in seconds and MiB."""

    import_s: float  # of the processor
    first_window_s: float  # since process start
    network_s: float
    whole_s: float
    peak_mib: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("start_up", __doc__)
    options.add_argument(
        "--repeats", type=positive(int), default=9, help="of each run; medians are shown"
    )
    options.add_argument("--previous", metavar="COMMIT", help="the app of which to compare with")
    args = options.parse_args(arguments)

    def do() -> bool:
        if not left_out():
            raise EvaluationError("not known what can be left out of torch; make install")
        (sample,) = fetch(ROOT / "runs" / "samples", names=["lung1"])
        here = _environment(ROOT)
        programs = [
            Program("app", {**here, FULL_IMPORT: ""}, _LEAN),
            Program("app, all of torch", {**here, FULL_IMPORT: "1"}, _FULL),
        ]
        version = app_version()
        if args.previous:
            folder, words = previous_app(args.previous, args.output / "previous")
            programs.append(Program("previous", _environment(folder), _FULL))
            version += f", previous {words}"
        mask = args.output / "start_up.nii.gz"
        starts = _in_turn(programs, app_command(_MODEL, sample.scan, mask, "cpu"), args.repeats)
        publish(_table(programs, starts, version, args.repeats), args.output / "start_up.md")
        return True

    return exit_code(do)


def _environment(folder: Path) -> dict[str, str]:
    """In which ``python -m app`` is the app in ``folder``, wherever it is called."""
    return {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


def _in_turn(programs: Sequence[Program], command: Command, repeats: int) -> dict[str, list[Start]]:
    """All of them once before the next repetition: a drift of the machine meets all."""
    starts: dict[str, list[Start]] = {p.name: [] for p in programs}
    for _ in range(repeats):
        for program in programs:
            starts[program.name].append(_start(program, command))
    return starts


def _start(program: Program, command: Command) -> Start:
    importing = measured([sys.executable, "-c", program.importing], program.environment)
    run = measured(command, program.environment)
    stages = app_stages(run.output)
    first = sum(stages.get(s, 0.0) for s in ("ready", DEVICE, "read", "preprocess"))
    return Start(float(importing.output), first, stages["network"], run.wall_s, run.peak_rss_mib)


def _table(
    programs: Sequence[Program], starts: dict[str, list[Start]], version: str, repeats: int
) -> str:
    def row(label: str, of: Callable[[Start], float], digits: int = 2) -> list[str]:
        first, *others = (statistics.median(of(s) for s in starts[p.name]) for p in programs)
        shares = [f"{m:.{digits}f} ({first / m:.2f}x)" for m in others]
        return [label, f"{first:.{digits}f}", *shares]

    rows = [
        row("importing torch, CPU s", lambda s: s.import_s),
        row("process start to first window, s", lambda s: s.first_window_s),
        row("network, s", lambda s: s.network_s),
        row("whole process, s", lambda s: s.whole_s),
        row("peak RSS, MiB", lambda s: s.peak_mib, 0),
    ]
    return (
        f"{description()}; app {version}; model cpu-small, scan lung1 (512 x 512 x 48), medians "
        f"of {repeats} cold processes each, files in the page cache; in brackets the app's share."
        "\n\n" + markdown_table(["", *(p.name for p in programs)], rows)
    )


if __name__ == "__main__":
    sys.exit(main())
