"""What is compared between teams, and the figures that stand for a team's many cases."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.challenges import CaseLimits

Floats = NDArray[np.float64]

FEW = 60  # values that a plot shows one by one
DIGITS = 7  # significant ones of a number in the page


@dataclass(frozen=True)
class Metric:
    """A column of results.csv that teams are compared by; shown is its value times `factor`.

    limit: the challenge's of it, by its name in CaseLimits.
    """

    column: str
    label: str
    unit: str
    note: str
    factor: float = 1.0
    decimals: int = 1
    is_higher_better: bool = False
    limit: Literal["time_s", "vram_mib"] | None = None

    def limit_in(self, limits: CaseLimits) -> float | None:
        """Return a challenge's limit of it, in the column's own unit."""
        return getattr(limits, self.limit) if self.limit else None


_BY_CONTAINER = "wall time around the whole container, as the organisers count"
_PEAK = "highest GPU memory above the baseline; a lower bound"
_AREA = "area under the VRAM-time curve above the baseline"
METRICS = (
    Metric("dsc", "DSC", "%", "Dice similarity coefficient of the lesions", 100.0, 1, True),
    Metric("nsd", "NSD", "%", "normalised surface Dice of the lesions", 100.0, 1, True),
    Metric("lesion_f1", "Lesion F1", "", "F1 of lesions found, any overlap counts", 1.0, 3, True),
    Metric("flare_time_s", "Time", "s", _BY_CONTAINER, limit="time_s"),
    Metric("peak_vram_mib", "Peak VRAM", "MiB", _PEAK, decimals=0, limit="vram_mib"),
    Metric("area_mib_s", "VRAM area", "GiB·s", _AREA, factor=1 / 1024),
    Metric("peak_ram_mib", "Peak RAM", "MiB", "highest memory, page cache included", decimals=0),
)


def distribution(values: Floats) -> dict[str, object]:
    """Return what a table and a box plot say of values, in their own unit.

    values: (n,), n > 0. Quartiles are interpolated linearly; whiskers reach to the last value
    within 1.5 interquartile ranges of the box, as Tukey draws them, and what is beyond is `far`.
    sd is the sample's (n - 1), None for a single value. Up to FEW values stand there themselves.
    """
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
    reach = 1.5 * (q3 - q1)
    near = values[(values >= q1 - reach) & (values <= q3 + reach)]
    far = np.sort(values[(values < q1 - reach) | (values > q3 + reach)])
    few = {"values": [brief(value) for value in values]} if values.size <= FEW else {}
    return few | {
        "n": values.size,
        "mean": brief(values.mean()),
        "sd": brief(values.std(ddof=1)) if values.size > 1 else None,
        "q1": brief(q1),
        "median": brief(median),
        "q3": brief(q3),
        "low": brief(near.min()),
        "high": brief(near.max()),
        "far": [brief(value) for value in far],
    }


def brief(value: object) -> object:
    """Return a number with as many digits as anybody reads; everything else as it is."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    return value
