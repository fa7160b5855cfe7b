"""`score`: masks that are there already. Starts at once: what scores is imported when it does."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("--predictions", type=Path, required=True, help="folder of NAME.nii.gz")
    parser.add_argument("--labels", type=Path, required=True, help="folder of NAME.nii.gz")
    parser.add_argument("--output", type=Path, required=True)
    add_scoring(parser)


def add_scoring(parser: argparse.ArgumentParser) -> None:
    """Add how masks are scored, for every command that does so."""
    parser.add_argument(
        "--scoring",
        type=_profile,
        default="flare24",
        metavar="NAME",
        help="flare23 or flare24, which is the default",
    )


def run(given: argparse.Namespace) -> int:
    """Score the masks; return 0 when all of them are sound."""
    from evaluation.score import score_folder

    sound = score_folder(given.predictions, given.labels, given.output, given.scoring)
    return 0 if sound else 1


def _profile(name: str) -> str:
    from evaluation.scoring.profiles import PROFILES

    if name not in PROFILES:
        known = ", ".join(repr(profile) for profile in sorted(PROFILES))
        raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {known})")
    return name
