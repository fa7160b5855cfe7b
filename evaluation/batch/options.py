"""Options of the workers of a machine and of a cluster, without what does the work."""

import argparse
from collections.abc import Callable
from pathlib import Path


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
        "--slots", type=at_least(1), metavar="N", help="use no GPU, and run N submissions at a time"
    )
    parser.add_argument(
        "--scorers",
        type=at_least(0),
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


def at_least(least: int) -> Callable[[str], int]:
    """Return an argument type: a whole number from `least` on."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: not a whole number from {least} on")
        return int(text)

    return parse
