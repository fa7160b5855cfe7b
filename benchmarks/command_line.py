"""What the command lines of all benchmarks share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.programs import ROOT
from volumes import command
from volumes.files import write_whole


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser that has --output. program: a module of this package."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}", description=description)
    made.add_argument("--output", type=Path, default=ROOT / "runs" / "benchmark")
    return made


def publish(report: str, file: Path) -> None:
    """Write a report to a file, and print it."""
    write_whole(file, report + "\n")
    print(report)


def exit_code(do: Callable[[], bool]) -> int:
    """Return 0 if `do` returns true, else 1; an error becomes a line that says why."""
    return command.exit_code(lambda: int(not do()))
