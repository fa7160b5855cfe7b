"""`rank`: all teams by what has been measured."""

import argparse
from pathlib import Path

from msgspec.structs import replace

from evaluation.cli import options
from evaluation.numbers import natural, positive
from volumes.command import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("results", type=Path, help="folder that holds a folder for each team")
    options.add_challenge(parser, default=None)
    parser.add_argument(
        "--without-gpu", action="store_true", help="leave out what is measured of the GPU"
    )
    parser.add_argument("--output", type=Path, help="default: ranking/ in that folder")
    parser.add_argument(
        "--cases",
        type=Path,
        help="folder of NAME_0000.nii.gz or NAME.nii.gz: these are ranked, whatever else there are"
        " results of",
    )
    for option, what in (("--only", "rank these alone"), ("--without", "leave these out")):
        parser.add_argument(
            option, nargs="+", default=(), metavar="NAME", help=f"teams or cases: {what}"
        )
    parser.add_argument(
        "--missing",
        choices=("failed", "exclude"),
        default="refuse",
        help="a case that a team has no result of counts as failed, or is left out for all teams"
        " (default: it is named, and nothing is ranked)",
    )
    parser.add_argument(
        "--resamples",
        type=positive(int),
        default=1000,
        metavar="N",
        help="of the cases (default 1000)",
    )
    parser.add_argument("--seed", type=natural, default=0, help="of the resamples (default 0)")


def run(given: argparse.Namespace) -> int:
    """Rank the teams, and say how sure the ranking is."""
    from evaluation.cases import names
    from evaluation.ranking import tables
    from evaluation.ranking.outcomes import collect, without_gpu
    from evaluation.ranking.ranking import rank
    from evaluation.ranking.ranking_file import write_ranking
    from evaluation.ranking.selection import Selection
    from evaluation.tables.csv_file import write_csv
    from evaluation.teams import RANKING, challenge_of, find_teams
    from volumes.files import write_whole

    teams, others = find_teams(given.results)
    for folder in others:
        say(f"notice: {folder}: holds neither cases/ nor submission.json; left out")
    challenge = given.challenge or challenge_of(teams)
    if given.without_gpu:
        challenge = replace(challenge, ranking=without_gpu(challenge.ranking))
    selection = Selection(
        None if given.cases is None else frozenset(names(given.cases)),
        frozenset(given.only),
        frozenset(given.without),
    )
    outcomes = collect(teams, challenge, given.missing, selection)
    ranking = rank(outcomes, challenge.ranking, given.resamples, given.seed)

    output = given.output or given.results / RANKING
    report = tables.markdown(ranking)
    write_whole(output / "ranking.md", report)
    write_whole(output / "ranking.tex", tables.latex(ranking))
    write_csv(output / "ranking.csv", tables.rows(ranking))
    write_csv(output / "challenger.csv", tables.challenger_rows(outcomes, challenge.ranking))
    write_ranking(output / "ranking.json", ranking)
    print(report)
    say(f"ranking  {output}")
    return 0
