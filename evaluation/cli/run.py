"""`run`: one submission on many cases."""

import argparse
import sys
from pathlib import Path

from evaluation.cli import options
from evaluation.errors import EvaluationError
from volumes.command import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    options.add_submission(parser)
    options.add_cases(parser)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--resume", action="store_true", help="go on with what --output holds")


def run(given: argparse.Namespace) -> int:
    """Evaluate the submission; return 0 when every case of it is sound."""
    from evaluation.harness import Plan, evaluate
    from evaluation.states import State
    from evaluation.teams import NO_TEAM, RANKING

    if given.output.resolve().name == RANKING:
        raise EvaluationError(f"{given.output}: {NO_TEAM}; choose another --output")
    submission = options.submission_of(given)
    plan = Plan(
        submission=submission,
        cases=options.cases_of(given),
        output=given.output,
        conditions=options.conditions_of(given, anonymised=given.anonymise),
        gpu=given.gpu,
        resume=given.resume,
    )
    records = evaluate(plan, sys.stdout)
    print(f"\n{(given.output / 'tables.md').read_text()}")
    say(f"results  {given.output / 'results.csv'}")
    return 0 if all(record.state is State.OK for record in records) else 1
