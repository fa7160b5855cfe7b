"""Options of the workers of a machine and of a cluster, without what does the work."""

import argparse
from pathlib import Path

from evaluation.numbers import natural, positive


def add_workers(parser: argparse._ActionsContainer) -> None:
    """Add the options that say which workers a machine has."""
    parser.add_argument(
        "--gpu",
        action="append",
        default=[],
        metavar="UUID|none",
        help="may be repeated; default: every GPU of this machine",
    )
    parser.add_argument(
        "--slots",
        type=positive(int),
        metavar="N",
        help="use no GPU, and run N submissions at a time",
    )
    parser.add_argument(
        "--scorers",
        type=natural,
        metavar="N",
        help="cases scored at a time (default: one a core)",
    )


def add_trust(parser: argparse._ActionsContainer) -> None:
    """Add the options that say how a cluster's scheduler is trusted."""
    parser.add_argument(
        "--certificates", type=Path, metavar="DIR", help="the folder that the scheduler was given"
    )
    parser.add_argument(
        "--insecure",
        action="store_true",
        help="a scheduler without TLS: whoever reaches a port runs programs as this user",
    )
