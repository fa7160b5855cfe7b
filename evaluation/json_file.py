"""Dataclasses as JSON files, and back: with every field that there should be, and no other."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from evaluation.errors import EvaluationError
from volumes.files import write_whole

T = TypeVar("T")


def write(path: Path, value: object, indent: int | None = 2) -> None:
    """Write a dataclass, or what holds some, as JSON; on one line where `indent` is None."""
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
        return convert(upgraded(json.loads(path.read_bytes())), kind)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise EvaluationError(f"{path}: not {what} ({error}); {remedy}") from error


def convert(content: Any, kind: type[T]) -> T:
    """Return JSON's objects and arrays as dataclasses; raises ValueError that names the field."""
    value = msgspec.convert(content, kind)
    if unknown := next(_unknown(content, msgspec.to_builtins(value), "$"), None):
        raise ValueError(f"unknown field `{unknown}`")  # which msgspec ignores in dataclasses
    return value


def _unknown(found: Any, known: Any, where: str) -> Iterator[str]:
    """Yield the fields that were found but are not in what was made of them."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name not in known:
                yield f"{where}.{name}"
            else:
                yield from _unknown(value, known[name], f"{where}.{name}")
    elif isinstance(found, list):
        for number, pair in enumerate(zip(found, known, strict=True)):
            yield from _unknown(*pair, f"{where}[{number}]")
