"""How long a ranking takes with all its resamples, on simulated results.

``python -m benchmarks.ranking --output runs/benchmark`` ranks 25 made-up teams in 400 cases by all
three methods, with 1000 resamples each, and writes a Markdown table.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.command_line import parser, publish
from benchmarks.machine import description
from evaluation import challenges
from evaluation.ranking.methods import METRIC_RANKS
from evaluation.ranking.outcomes import Outcomes
from evaluation.ranking.ranking import rank
from evaluation.store import Store
from evaluation.tables.markup import markdown_table
from evaluation.teams import Team

SIZES = ((25, 400), (50, 1000))  # teams, cases
RESAMPLES = 1000
REPEATS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    args = parser("ranking", __doc__).parse_args(arguments)
    report = (
        f"A ranking of simulated results in memory, with {RESAMPLES} resamples by each of"
        f" {len(METRIC_RANKS)} methods and all significance tests; {description()}. Seconds,"
        f" median of {REPEATS}.\n\n"
    )
    rows = [_row(teams, cases) for teams, cases in SIZES]
    report += markdown_table(("teams", "cases", "metrics", "wall s", "CPU s"), rows, words=())
    publish(report, args.output / "ranking.md")
    return 0


def simulated(teams: int, cases: int, seed: int = 0) -> Outcomes:
    """Make up what teams of different quality and speed come to in cases of different difficulty.

    As in FLARE: DSC and NSD have 4 decimals, most cases are within the tolerances of time and
    memory, and one in fifty fails.
    """
    draw = np.random.default_rng(seed)
    quality = draw.uniform(-1, 2, (teams, 1)) + draw.normal(0, 1.5, cases)
    dsc, nsd = (1 / (1 + np.exp(-quality - draw.normal(0, 0.7, (2, teams, cases))))).round(4)
    time_s = draw.lognormal(np.log(draw.uniform(8, 50, (teams, 1))), 0.4, (teams, cases))
    above_mib = np.maximum(draw.normal(draw.uniform(-2000, 1500, (teams, 1)), 700, time_s.shape), 0)
    failed = draw.random((teams, cases)) < 0.02
    values = np.stack([dsc, nsd, time_s.round(3), above_mib * time_s])
    return Outcomes(
        scoring="flare24",
        teams=tuple(Team(f"team{i:03}", Store(Path(f"team{i:03}")), None) for i in range(teams)),
        cases=tuple(f"case_{i:04}" for i in range(cases)),
        values=np.where(failed, np.nan, values),
        failed=failed,
        missing=np.zeros_like(failed),
        excluded=(),
        unranked=(),
    )


def _row(teams: int, cases: int) -> list[str]:
    rules, outcomes = challenges.load("flare24").ranking, simulated(teams, cases)
    wall_s, cpu_s = [], []
    for _ in range(REPEATS):
        wall, cpu = time.perf_counter(), time.process_time()
        rank(outcomes, rules, RESAMPLES)
        wall_s.append(time.perf_counter() - wall)
        cpu_s.append(time.process_time() - cpu)
    seconds = (f"{statistics.median(of):.2f}" for of in (wall_s, cpu_s))
    return [str(teams), str(cases), str(len(rules.metrics)), *seconds]


if __name__ == "__main__":
    sys.exit(main())
