"""What this room says to its users."""

import sys
from collections.abc import Callable

from app.model import ModelError

GOES_ON = "interrupted; start again with the same options, it goes on"


class TrainingError(Exception):
    """One line for the user: file, finding, remedy."""


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
