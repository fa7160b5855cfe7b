"""What the command lines of this room share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from app.model import ModelError
from training.errors import TrainingError
from volumes import VERSION

GOES_ON = "interrupted; start again with the same options, it goes on"


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser that has --version. program: a module of this package."""
    made = argparse.ArgumentParser(
        prog=f"python -m training.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    return made


def exit_code(do: Callable[[], object], interrupted: str = "interrupted") -> int:
    """Do what a command line asks for: 0, 1 after a line on what is wrong, 130 if interrupted."""
    try:
        do()
    except (TrainingError, ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0
