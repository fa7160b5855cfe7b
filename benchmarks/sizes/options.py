"""The options of benchmarks that take long: which networks and scans, and how far they come."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.command_line import parser
from benchmarks.log import minutes
from benchmarks.published import NETWORKS
from evaluation.numbers import positive
from examples import samples


def long_parser(
    program: str, description: str | None, slices: Sequence[int]
) -> argparse.ArgumentParser:
    """Return the parser of such a benchmark. slices: the default of --slices."""
    made = parser(program, description)
    add = made.add_argument
    add("--gpu", metavar="UUID", help="which one, where there are several")
    add("--networks", nargs="+", choices=list(NETWORKS), help="default: both; on a CPU huang")
    add("--slices", nargs="+", type=positive(int), default=slices, help="default: %(default)s")
    add("--scan", choices=samples.NAMES, default=samples.NAMES[0], help="default: %(default)s")
    add("--resume", action="store_true", help="keep what an earlier call has measured")
    add("--minutes", type=minutes, help="in which runs may begin; --resume does the rest")
    return made
