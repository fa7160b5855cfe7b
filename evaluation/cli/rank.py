"""`rank`: all teams by what has been measured."""

import argparse
from pathlib import Path

from evaluation.ranking import tables
from evaluation.ranking.outcomes import collect
from evaluation.ranking.profile import built_in, load_profile
from evaluation.ranking.ranking import rank
from evaluation.ranking.ranking_file import write_ranking
from evaluation.tables.csv_file import write_csv
from evaluation.teams import RANKING, find_teams
from volumes.files import write_whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("results", type=Path, help="folder that holds a folder for each team")
    parser.add_argument(
        "--profile",
        default="flare24",
        metavar="NAME|FILE",
        help=f"how to rank: {', '.join(built_in())}, or a TOML file like these (default: flare24)",
    )
    parser.add_argument("--output", type=Path, help=f"default: {RANKING}/ in that folder")
    parser.add_argument(
        "--missing",
        choices=("failed", "exclude"),
        default="refuse",
        help="a case that a team has no result of counts as failed, or is left out for all teams"
        " (default: it is named, and nothing is ranked)",
    )
    parser.add_argument(
        "--resamples", type=_positive, default=1000, metavar="N", help="of the cases (default 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (default 0)")


def run(given: argparse.Namespace) -> int:
    """Rank the teams, and say how sure the ranking is."""
    profile = load_profile(given.profile)
    teams, others = find_teams(given.results)
    for folder in others:
        print(f"notice: {folder}: holds neither cases/ nor submission.json; left out")
    outcomes = collect(teams, profile, given.missing)
    ranking = rank(outcomes, profile, given.resamples, given.seed)

    output = given.output or given.results / RANKING
    report = tables.markdown(ranking)
    write_whole(output / "ranking.md", report)
    write_csv(output / "ranking.csv", tables.rows(ranking))
    write_csv(output / "challenger.csv", tables.challenger_rows(outcomes, profile))
    write_ranking(output / "ranking.json", ranking)
    print(f"{report}\nranking  {output}")
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value
