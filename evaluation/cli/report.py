"""`report`: one HTML file of what all teams came to."""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.cli import options
from volumes import VERSION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("results", type=Path, help="folder that holds a folder for each team")
    parser.add_argument("--output", type=Path, help="default: report.html in that folder")
    parser.add_argument(
        "--ranking", type=Path, help="what `rank --output` named (default: ranking/ in that folder)"
    )
    parser.add_argument("--title", default="Lesion segmentation in CT: results", help="its heading")
    options.add_challenge(parser, default=None)


def run(given: argparse.Namespace) -> int:
    """Write the file."""
    from evaluation.numbers import counted
    from evaluation.parallel import parallel_map
    from evaluation.report.curves import intervals
    from evaluation.report.document import html
    from evaluation.report.metrics import METRICS
    from evaluation.report.parts import part
    from evaluation.report.standings import read_standings
    from evaluation.teams import RANKING, challenge_of, find_teams
    from volumes.files import write_whole

    teams, others = find_teams(given.results)
    for folder in others:
        print(f"notice: {folder}: holds neither cases/ nor submission.json; left out")
    ranking = (given.ranking or given.results / RANKING) / "ranking.json"
    standings = None
    if given.ranking or ranking.exists():
        standings = read_standings(ranking, teams)
    else:
        print("notice: no ranking.json, so no places; `python -m evaluation rank` writes it")
    challenge = given.challenge or challenge_of(teams)
    curves = sum(len(team.cases()) for team in teams)
    parts = list(parallel_map(part, [(team, challenge, intervals(curves)) for team in teams]))
    overview: dict[str, Any] = {
        "title": given.title,
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "version": VERSION,
        "limits": {"time_s": challenge.limits.time_s, "vram_mib": challenge.limits.vram_mib},
        "metrics": [
            vars(metric) | {"limit": metric.limit_in(challenge.limits)} for metric in METRICS
        ],
        "standings": standings,
    }
    output = given.output or given.results / "report.html"
    write_whole(output, html(overview, parts))
    print(f"{output}  {output.stat().st_size / 2**20:.1f} MiB, {counted(len(teams), 'team')}")
    return 0
