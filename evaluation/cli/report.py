"""`report`: one HTML file of what all teams came to."""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.cli import options
from evaluation.errors import EvaluationError
from evaluation.report.audience import PUBLIC_COLUMNS, WITHHELD
from volumes import VERSION
from volumes.command import say

if TYPE_CHECKING:
    from evaluation.report.audience import Audience
    from evaluation.teams import Team


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("results", type=Path, help="folder that holds a folder for each team")
    parser.add_argument("--output", type=Path, help="default: report.html in that folder")
    parser.add_argument(
        "--ranking", type=Path, help="what `rank --output` named (default: ranking/ in that folder)"
    )
    readers = parser.add_argument_group(
        "for whom", "by default for the organisers: all there is, with the hidden test set in it"
    )
    outside = readers.add_mutually_exclusive_group()
    outside.add_argument(
        "--public",
        action="store_true",
        help="figures alone: cases by number, nothing of scans, references, logs and machines",
    )
    outside.add_argument(
        "--team", metavar="NAME", help="as --public, and why cases of this team failed"
    )
    readers.add_argument(
        "--show",
        nargs="+",
        choices=WITHHELD,
        default=(),
        metavar="WHAT",
        help="what of the following besides, of the --team's own cases where that is given: "
        + "; ".join(f"{name} ({what})" for name, what in WITHHELD.items()),
    )
    readers.add_argument(
        "--columns",
        nargs="+",
        default=(),
        metavar="NAME",
        help=f"of results.csv, what is shown of a case instead of {', '.join(PUBLIC_COLUMNS)}",
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
        say(f"notice: {folder}: holds neither cases/ nor submission.json; left out")
    public, own = _audiences(given, teams)
    ranking = (given.ranking or given.results / RANKING) / "ranking.json"
    standings = None
    if given.ranking or ranking.exists():
        standings = read_standings(ranking, teams, public)
    else:
        print("notice: no ranking.json, so no places; `python -m evaluation rank` writes it")
    challenge = given.challenge or challenge_of(teams)
    most = intervals(sum(len(team.cases()) for team in teams))
    jobs = [(t, challenge, most, own if t.name == given.team else public) for t in teams]
    parts = list(parallel_map(part, jobs))
    overview: dict[str, Any] = {
        "title": given.title,
        "made": datetime.now(UTC).isoformat(timespec="minutes"),
        "version": VERSION,
        "limits": {"time_s": challenge.limits.time_s, "vram_mib": challenge.limits.vram_mib},
        "metrics": [
            vars(metric) | {"limit": metric.limit_in(challenge.limits)} for metric in METRICS
        ],
        "standings": standings,
        "audience": {"team": given.team, "public": given.public},
    }
    name = "public" if given.public else f"team-{given.team}" if given.team else "report"
    output = given.output or given.results / f"{name}.html"
    write_whole(output, html(overview, parts))
    say(f"{output}  {output.stat().st_size / 2**20:.1f} MiB, {counted(len(teams), 'team')}")
    return 0


def _audiences(given: argparse.Namespace, teams: Sequence["Team"]) -> tuple["Audience", "Audience"]:
    """Return who reads of all teams, and who of the one that --team names."""
    from evaluation.report.audience import organisers, readers
    from evaluation.report.parts import COLUMNS

    names = [team.name for team in teams]
    if given.team and given.team not in names:
        raise EvaluationError(f"--team {given.team}: no such team; there are {', '.join(names)}")
    if not (given.public or given.team):
        if given.show or given.columns:
            raise EvaluationError("--show and --columns go with --public or --team NAME")
        return organisers(), organisers()
    for column in given.columns:
        if column not in COLUMNS:
            raise EvaluationError(f"--columns {column}: there are {', '.join(COLUMNS)}")
    records = [one for team in teams for one in team.records()]
    public = readers(records, given.show if given.public else (), given.columns)
    return public, readers(records, {"messages", *given.show}, given.columns)
