"""The runs of a long benchmark: a line of JSON each, so that it can be interrupted and go on."""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from evaluation.errors import EvaluationError
from volumes.files import write_whole


class Run(Protocol):
    """What is known of one run: a dataclass of what JSON can hold."""

    @property
    def key(self) -> Hashable:
        """Which run of the plan it is."""

    @property
    def failed(self) -> bool:
        """Whether it is to be run again."""


R = TypeVar("R", bound=Run)
K = TypeVar("K", bound=Hashable)


class Log(Generic[R]):
    """The runs so far, of one ``kind``, in a file that is complete after each of them.

    setting: what all of them share (machine, versions); its first line. An interrupted benchmark is
    taken up with `resume`; raises EvaluationError if it was another machine's or version's.
    """

    def __init__(self, file: Path, kind: type[R], setting: dict[str, Any], resume: bool) -> None:
        self._file, self._kind, self._setting = file, kind, setting
        self.runs: list[R] = []
        if resume and file.exists():
            self._load()
        self._save()

    def has(self, key: Hashable) -> bool:
        """Whether that run is done; a failed one is not."""
        return any(r.key == key and not r.failed for r in self.runs)

    def lacking(self, plan: Sequence[K], time: Time) -> Iterator[K]:
        """The runs of a plan that are not done, until time is up."""
        for key in plan:
            if time.is_up():
                return
            if not self.has(key):
                yield key

    def rest(self, plan: Sequence[Hashable]) -> str:
        """Return a line that says how many runs of a plan are left; empty if none is."""
        left = sum(not self.has(key) for key in plan)
        return f"{left} of {len(plan)} runs are left: call again with --resume" if left else ""

    def add(self, run: R) -> None:
        """Keep a run; it takes the place of a failure of the same run."""
        self.runs = [*(r for r in self.runs if r.key != run.key), run]
        self._save()

    def _load(self) -> None:
        try:
            setting, *lines = map(json.loads, self._file.read_text().splitlines())
            setting = dict(setting)
            runs = [msgspec.convert(line, self._kind) for line in lines]
        except (ValueError, TypeError) as error:
            raise EvaluationError(
                f"{self._file}: not of this version ({error}); remove it, or start without --resume"
            ) from error
        for name in {**setting, **self._setting}:
            before, now = setting.get(name), self._setting.get(name)
            if before != now:
                raise EvaluationError(
                    f"{self._file}: {name} was {before!r} and is {now!r}; remove it, or start "
                    "without --resume"
                )
        self.runs = runs

    def _save(self) -> None:
        lines = [self._setting, *map(msgspec.to_builtins, self.runs)]
        write_whole(self._file, "".join(json.dumps(line) + "\n" for line in lines))


def minutes(text: str) -> float:
    """Return an option's number of minutes; raises ValueError unless it is positive."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"{text} is not a positive number")
    return value


class Time:
    """A limit in minutes after which no further run is begun; None: no limit."""

    def __init__(self, minutes: float | None) -> None:
        self._end_s = float("inf") if minutes is None else time.monotonic() + 60 * minutes

    def is_up(self) -> bool:
        """Whether no further run is begun."""
        return time.monotonic() >= self._end_s
