"""What the benchmark of published sizes keeps: one line of JSON a run, and their medians."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.results import write

APP, PREVIOUS, NNUNET, STAGED = "app", "previous", "nnunet", "nnunet-stages"
Key = tuple[str, int, str, int]


@dataclass(frozen=True)
class Measurement:
    """One cold process. What was not measured is None or empty; a run that failed has an `error`.

    windows and step (in patches): of the sliding window. notes: warnings, company on the GPU.
    """

    network: str
    slices: int
    program: str
    repeat: int
    wall_s: float | None = None
    peak_rss_mib: float | None = None
    peak_vram_mib: float | None = None
    area_mib_s: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    windows: int | None = None
    step: float | None = None
    notes: list[str] = field(default_factory=list)
    error: str | None = None

    @property
    def key(self) -> Key:
        """Which run of the plan it is."""
        return self.network, self.slices, self.program, self.repeat

    def peak_mib(self, on_gpu: bool) -> float | None:
        """Of the memory that matters there."""
        return self.peak_vram_mib if on_gpu else self.peak_rss_mib


class Log:
    """The measurements so far, in a file that is complete after each of them.

    setting: what all of them share (machine, versions); its first line. An interrupted run is
    taken up with `resume`; raises EvaluationError if it was another machine's or version's.
    """

    def __init__(self, file: Path, setting: dict[str, Any], resume: bool) -> None:
        self._file, self._setting = file, setting
        self.measurements: list[Measurement] = []
        if resume and file.exists():
            self._load()
        self._save()

    def has(self, key: Key) -> bool:
        """Whether that run was measured; one that failed was not."""
        return any(m.key == key and m.error is None for m in self.measurements)

    def add(self, measurement: Measurement) -> None:
        """Keep a measurement, in place of the same run's failure."""
        others = [m for m in self.measurements if m.key != measurement.key]
        self.measurements = [*others, measurement]
        self._save()

    def _load(self) -> None:
        try:
            setting, *lines = map(json.loads, self._file.read_text().splitlines())
            measurements = [Measurement(**line) for line in lines]
        except (ValueError, TypeError) as error:
            raise EvaluationError(
                f"{self._file}: not of this version ({error}); start without --resume"
            ) from error
        for name in {**setting, **self._setting}:
            before, now = setting.get(name), self._setting.get(name)
            if before != now:
                raise EvaluationError(
                    f"{self._file}: {name} was {before!r} and is {now!r}; start without --resume"
                )
        self.measurements = measurements

    def _save(self) -> None:
        lines = [self._setting, *(asdict(m) for m in self.measurements)]
        write(self._file, "".join(json.dumps(line) + "\n" for line in lines))


@dataclass(frozen=True)
class Case:
    """The median of one program's repeats on one scan; None or empty: not measured."""

    wall_s: float | None = None
    peak_mib: float | None = None
    area_mib_s: float | None = None
    stages: dict[str, float] = field(default_factory=dict)
    windows: int | None = None
    step: float | None = None
    error: str | None = None

    def rest_s(self, network_s: float | None) -> float | None:
        """The whole process without the network."""
        if self.wall_s is None or network_s is None:
            return None
        return self.wall_s - network_s


def case(measurements: Iterable[Measurement], on_gpu: bool) -> Case:
    """The medians of some repeats of one run; if none went well, with an error."""
    runs = list(measurements)
    good = [m for m in runs if m.error is None]
    if not good:
        return Case(error=runs[-1].error if runs else None)
    stages = [m.stages for m in good if m.stages]
    return Case(
        wall_s=_median([m.wall_s for m in good]),
        peak_mib=_median([m.peak_mib(on_gpu) for m in good]),
        area_mib_s=_median([m.area_mib_s for m in good]),
        stages={s: statistics.median(x[s] for x in stages) for s in stages[0]} if stages else {},
        # Where one repeat had to take a larger step, that is said of all.
        windows=min((m.windows for m in good if m.windows is not None), default=None),
        step=max((m.step for m in good if m.step is not None), default=None),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
