"""`run`: one submission on many cases."""

import argparse
import sys
from pathlib import Path

from evaluation.cli import options
from volumes.command import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    options.add_submission(parser)
    parser.add_argument("--cases", type=Path, required=True, help="folder of NAME_0000.nii.gz")
    parser.add_argument("--labels", type=Path, required=True, help="folder of NAME.nii.gz")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--resume", action="store_true", help="go on with what --output holds")


def run(given: argparse.Namespace) -> int:
    """Evaluate the submission; return 0 when every case of it is sound."""
    from evaluation.cases import find
    from evaluation.harness import Plan, evaluate
    from evaluation.states import State

    submission = options.submission_of(given)
    cases = find(given.cases, given.labels)
    given.challenge.contract.check_cases(cases)
    plan = Plan(
        submission=submission,
        cases=cases,
        output=given.output,
        conditions=options.conditions_of(given),
        gpu=given.gpu,
        resume=given.resume,
    )
    records = evaluate(plan, sys.stdout)
    print(f"\n{(given.output / 'tables.md').read_text()}")
    say(f"results  {given.output / 'results.csv'}")
    return 0 if all(record.state is State.OK for record in records) else 1
