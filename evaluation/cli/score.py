"""`score`: masks that are there already."""

import argparse
from pathlib import Path

from evaluation.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("--predictions", type=Path, required=True, help="folder of NAME.nii.gz")
    parser.add_argument("--labels", type=Path, required=True, help="folder of NAME.nii.gz")
    parser.add_argument("--output", type=Path, required=True)
    options.add_challenge(parser)


def run(given: argparse.Namespace) -> int:
    """Score the masks; return 0 when all of them are sound."""
    from evaluation.score import score_folder

    sound = score_folder(given.predictions, given.labels, given.output, given.challenge)
    return 0 if sound else 1
