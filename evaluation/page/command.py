"""Command line of the report."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation import VERSION
from evaluation.page.curves import intervals
from evaluation.page.document import html
from evaluation.page.metrics import METRICS
from evaluation.page.parts import part
from evaluation.page.standings import read_standings
from evaluation.results import write
from evaluation.teams import find_teams
from evaluation.tolerances import TIME_LIMIT_S, VRAM_LIMIT_MIB
from evaluation.workers import each

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_report(commands: "Commands") -> None:
    """Add `report` to a command line."""
    one = commands.add_parser("report", help=report.__doc__, description=report.__doc__)
    one.set_defaults(do=report)
    one.add_argument("results", type=Path, help="folder that holds a folder for each team")
    one.add_argument("--output", type=Path, help="default: report.html in that folder")
    one.add_argument("--title", default="Lesion segmentation in CT: results", help="its heading")


def report(given: argparse.Namespace) -> int:
    """Make one HTML file of what all teams came to, to be opened by anybody, anywhere."""
    teams, others = find_teams(given.results)
    for folder in others:
        print(f"notice: {folder}: holds neither cases/ nor submission.json; left out")
    standings = read_standings(given.results, [team.name for team in teams])
    if standings is None:
        print("notice: no ranking.json, so no places; `python -m evaluation rank` writes it")
    curves = sum(len(team.cases()) for team in teams)
    parts = list(each(part, [(team, intervals(curves)) for team in teams]))
    overview: dict[str, Any] = {
        "title": given.title,
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "version": VERSION,
        "limits": {"time_s": TIME_LIMIT_S, "vram_mib": VRAM_LIMIT_MIB},
        "metrics": [vars(metric) for metric in METRICS],
        "standings": standings,
    }
    output = given.output or given.results / "report.html"
    write(output, html(overview, parts))
    print(f"{output}  {output.stat().st_size / 2**20:.1f} MiB, {len(teams)} teams")
    return 0
