"""msgspec's structs as JSON files, and back: every field as it should be, and no other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from evaluation.errors import EvaluationError
from volumes.files import read_json, write_whole

T = TypeVar("T", bound=msgspec.Struct)


def write(path: Path, value: msgspec.Struct, indent: int | None = 2) -> None:
    """Write a struct as JSON; on one line where `indent` is None."""
    write_whole(path, json.dumps(msgspec.to_builtins(value), indent=indent) + "\n")


def read(
    path: Path,
    kind: type[T],
    what: str,
    remedy: str,
    upgraded: Callable[[Any], Any] = lambda content: content,
) -> T | None:
    """Return what `write` wrote of this kind; None where there is no file.

    what: it is, in words. upgraded: makes JSON of earlier versions what it would be now. Raises
    EvaluationError that names file, field and remedy when it is anything else.
    """
    try:
        return msgspec.convert(upgraded(read_json(path)), kind)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EvaluationError(f"{path}: not {what} ({error}); {remedy}") from error
