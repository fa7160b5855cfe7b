"""What the command lines of this room share."""

from __future__ import annotations

import argparse

from volumes import VERSION

GOES_ON = "start again with the same options, it goes on"


def parser(program: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser that has --version. program: a module of this package."""
    made = argparse.ArgumentParser(
        prog=f"python -m training.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    return made
