"""Whether ``--vram-budget`` is kept, by NVML: ``python -m benchmarks.budgets`` on a GPU.

Both published networks with random weights, on the published sizes, each run a cold process. A
budget that the app refuses in one line is kept, too. In ``--output``: budgets.md, and budgets/ with
logs and curves. Exit code 1: a budget was not kept, or a run failed for another reason.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from benchmarks import machine, programs
from benchmarks.command_line import exit_code
from benchmarks.log import Log, Time
from benchmarks.programs import ROOT
from benchmarks.published import NETWORKS, make_weights
from benchmarks.sizes.meter import CommandFailed, Meter
from benchmarks.sizes.options import long_parser
from benchmarks.sizes.scans import LONG_SLICES, PUBLISHED_SLICES, make_scan
from benchmarks.sizes.versions import app_version
from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.numbers import positive
from evaluation.tables.markup import markdown_row, markdown_table
from examples import samples
from volumes.files import write_whole

BUDGETS_MIB = (1100, 1250, 1400, 1600, 1900, 2200, 2600, 3000, 4096, 6000, 8000)
_REFUSED = "error: --vram-budget "
KEPT, BROKEN, REFUSED, FAILED = "kept", "**broken**", "refused", "**failed**"


class Result(Struct, frozen=True, forbid_unknown_fields=True):
    """One run: the peak by NVML, net of the baseline; None where it is not known."""

    network: str
    slices: int
    budget_mib: int
    verdict: str
    peak_mib: float | None = None
    wall_s: float | None = None
    message: str = ""

    @property
    def key(self) -> tuple[str, int, int]:
        """Which run of the plan it is."""
        return self.network, self.slices, self.budget_mib

    @property
    def failed(self) -> bool:
        """Whether the run shows nothing about the budget."""
        return self.verdict == FAILED


def verdict(peak_mib: float | None, budget_mib: int) -> str:
    """Return the verdict on a run that ended well."""
    if peak_mib is None:
        return FAILED  # nothing was measured, so nothing is shown
    return KEPT if peak_mib <= budget_mib else BROKEN


def refused(printed: str) -> bool:
    """Whether a run that ended badly says that the budget is too small, and nothing else."""
    lines = [line for line in printed.splitlines() if line.startswith("error: ")]
    return bool(lines) and all(line.startswith(_REFUSED) for line in lines)


def table(results: Iterable[Result], where: str) -> str:
    """Return the report in Markdown: a row for each run."""
    head = ("network", "slices", "budget, MiB", "peak, MiB", "s", "")
    return (
        f"Peak of GPU memory by NVML, context included, net of the baseline; {where}.\n\n"
        + markdown_table(head, map(_row, results), words=(0, 5))
    )


def _row(r: Result) -> list[str]:
    verdict = r.verdict + (f": {r.message}" if r.message else "")
    sizes = [str(r.slices), str(r.budget_mib), _number(r.peak_mib, 0), _number(r.wall_s, 1)]
    return [r.network, *sizes, verdict]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = long_parser("budgets", __doc__, [*PUBLISHED_SLICES, LONG_SLICES])
    add = options.add_argument
    add(
        "--budgets",
        nargs="+",
        type=positive(int),
        default=BUDGETS_MIB,
        help="MiB; default: %(default)s",
    )
    args = options.parse_args(arguments)

    def do() -> bool:
        gpu = devices.find(args.gpu)
        if gpu is None:
            raise EvaluationError("NVML finds no GPU, so no budget can be measured")
        where, folder = machine.description(gpu), args.output.resolve() / "budgets"
        same = {"machine": where, "app": app_version(), "scan": args.scan}
        log = Log(folder / "runs.jsonl", Result, same, args.resume)
        (sample,) = samples.fetch(ROOT / "runs" / "samples", names=[args.scan])
        plan = list(itertools.product(args.networks or NETWORKS, args.slices, args.budgets))
        with Meter(gpu, folder) as meter:
            for name, slices, budget in log.lacking(plan, Time(args.minutes)):
                model = make_weights(NETWORKS[name], folder / "networks").model
                scan = make_scan(sample.scan, slices, folder / "scans")
                log.add(_run(meter, name, model, scan, slices, budget))
                print(markdown_row(_row(log.runs[-1])), file=sys.stderr, flush=True)
                write_whole(args.output / "budgets.md", table(log.runs, where))
        print(table(log.runs, where))
        print(log.rest(plan), file=sys.stderr)
        return not any(r.verdict in (BROKEN, FAILED) for r in log.runs if r.key in plan)

    return exit_code(do)


def _run(
    meter: Meter, network: str, model: Path, scan: Path, slices: int, budget_mib: int
) -> Result:
    name = f"{network}-{slices}-{budget_mib}"
    mask = scan.parent / f"{name}.nii.gz"
    budget = ("--vram-budget", str(budget_mib))
    command = programs.app_command(model, scan, mask, "cuda", *budget)
    try:
        cost, _ = meter.run(name, command, {}, ROOT)
    except CommandFailed as error:
        printed = meter.log_of(name).read_text(errors="replace")
        why = REFUSED if refused(printed) else FAILED
        return Result(network, slices, budget_mib, why, message=str(error))
    finally:
        mask.unlink(missing_ok=True)
    found = verdict(cost.peak_vram_mib, budget_mib)
    notes = "; ".join(cost.notes)
    return Result(network, slices, budget_mib, found, cost.peak_vram_mib, cost.wall_s, notes)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(main())
