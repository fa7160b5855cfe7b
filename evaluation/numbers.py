"""Numbers as people write and read them: types for argparse that say what is wrong, and counts."""

import argparse
from collections.abc import Callable


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return an argument type: a number of `kind` above 0."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError as error:
            expected = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r}: not {expected}") from error
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}: must be above 0")
        return value

    return parse


def natural(text: str) -> int:
    """Return a whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: not a whole number from 0 on")
    return int(text)


def counted(number: int, noun: str) -> str:
    """Return "1 case", "2 cases"; the plural of `noun` has an s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
