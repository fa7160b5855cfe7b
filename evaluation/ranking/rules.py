"""How a challenge ranks, as data: metrics, weights, tolerances, and what a failed case counts."""

import math
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

Method = Literal["rank-then-aggregate", "aggregate-then-rank", "test-then-rank"]
METHODS: tuple[Method, ...] = get_args(Method)
Positive = Annotated[float, Meta(gt=0)]


class Metric(Struct, frozen=True, forbid_unknown_fields=True):
    """One column of results.csv and how it is ranked; raises ValueError for what cannot be.

    column: may also be area_above_N_mib_s: memory above N MiB over time. failed: what a failed case
    counts with, before the tolerance: no value counts as worse. weight: of this metric's ranks in
    the mean over metrics. tolerance: max(0, value - tolerance) is what is ranked. undefined: what
    counts where a sound mask has no value, as F1 where neither mask has a lesion; None: there must
    be one.
    """

    column: str
    name: str
    better: Literal["larger", "smaller"]
    failed: float
    weight: Positive = 1.0
    tolerance: float = 0.0
    undefined: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.failed, self.weight, self.tolerance, self.undefined or 0.0)
        if not all(map(math.isfinite, numbers)):
            raise ValueError("failed, weight, tolerance and undefined must be finite")
        if self.tolerance < 0 or (self.tolerance > 0 and self.better == "larger"):
            raise ValueError("a tolerance must be above 0, and needs a metric that is better small")


class RankingRules(Struct, frozen=True, forbid_unknown_fields=True):
    """A challenge's ranking; raises ValueError for what cannot be.

    name: the challenge's. method: which ranking decides; the others are shown beside it. alpha:
    level of the significance tests.
    """

    name: str
    method: Method
    metrics: tuple[Metric, ...]
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05

    def __post_init__(self) -> None:
        columns = [metric.column for metric in self.metrics]
        if not columns or len(set(columns)) < len(columns):
            raise ValueError("metrics: there must be some, each with a column of its own")
