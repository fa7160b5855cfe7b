"""`report`: one HTML file of what all teams came to."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.parallel import parallel_map
from evaluation.report.curves import intervals
from evaluation.report.document import html
from evaluation.report.metrics import METRICS
from evaluation.report.parts import part
from evaluation.report.standings import read_standings
from evaluation.teams import find_teams
from evaluation.tolerances import TIME_LIMIT_S, VRAM_LIMIT_MIB
from volumes import VERSION
from volumes.files import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("results", type=Path, help="folder that holds a folder for each team")
    parser.add_argument("--output", type=Path, help="default: report.html in that folder")
    parser.add_argument("--title", default="Lesion segmentation in CT: results", help="its heading")


def run(given: argparse.Namespace) -> int:
    """Write the file."""
    teams, others = find_teams(given.results)
    for folder in others:
        print(f"notice: {folder}: holds neither cases/ nor submission.json; left out")
    standings = read_standings(given.results, [team.name for team in teams])
    if standings is None:
        print("notice: no ranking.json, so no places; `python -m evaluation rank` writes it")
    curves = sum(len(team.cases()) for team in teams)
    parts = list(parallel_map(part, [(team, intervals(curves)) for team in teams]))
    overview: dict[str, Any] = {
        "title": given.title,
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "version": VERSION,
        "limits": {"time_s": TIME_LIMIT_S, "vram_mib": VRAM_LIMIT_MIB},
        "metrics": [vars(metric) for metric in METRICS],
        "standings": standings,
    }
    output = given.output or given.results / "report.html"
    write_whole(output, html(overview, parts))
    print(f"{output}  {output.stat().st_size / 2**20:.1f} MiB, {len(teams)} teams")
    return 0
