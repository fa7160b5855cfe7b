"""What the benchmark of published sizes keeps of a run, and the medians of its repeats."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

APP, PREVIOUS, NNUNET, STAGED = "app", "previous", "nnunet", "nnunet-stages"
Key = tuple[str, int, str, int]


class Measurement(Struct, frozen=True, forbid_unknown_fields=True):
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

    @property
    def failed(self) -> bool:
        """Whether nothing was measured."""
        return self.error is not None

    def rest_s(self, network_s: float | None) -> float | None:
        """The whole process without the network."""
        if self.wall_s is None or network_s is None:
            return None
        return self.wall_s - network_s


def medians(wanted: Measurement, measurements: Iterable[Measurement]) -> Measurement:
    """Return it with the medians of its repeats; if none went well, with an error if there is one.

    Where one repeat had to take a larger step, that is said of all.
    """
    runs = [m for m in measurements if m.key[:3] == wanted.key[:3]]
    good = [m for m in runs if m.error is None]
    if not good:
        return replace(wanted, error=runs[-1].error if runs else None)
    stages = [m.stages for m in good if m.stages]
    return replace(
        wanted,
        wall_s=_median([m.wall_s for m in good]),
        peak_rss_mib=_median([m.peak_rss_mib for m in good]),
        peak_vram_mib=_median([m.peak_vram_mib for m in good]),
        area_mib_s=_median([m.area_mib_s for m in good]),
        stages={s: statistics.median(x[s] for x in stages) for s in stages[0]} if stages else {},
        windows=min((m.windows for m in good if m.windows is not None), default=None),
        step=max((m.step for m in good if m.step is not None), default=None),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None
