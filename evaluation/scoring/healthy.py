"""Healthy cases, those whose reference has no lesion: in how many one is found, and how much."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from evaluation.states import State


@dataclass(frozen=True)
class Healthy:
    """Healthy cases of one submission.

    failed: those without a sound mask. alarms: those in which something was found, and the failed
    ones, which are no better. false_ml: the volume found, over all that did not fail.
    """

    cases: int
    failed: int
    alarms: int
    false_ml: float

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, object]]) -> Self:
        """Count them. rows: one a case, with `status`, `reference_ml` and `predicted_ml` in ml."""
        healthy = [row for row in rows if row.get("reference_ml") == 0]
        found_ml = [float(str(row["predicted_ml"])) for row in healthy if row["status"] == State.OK]
        failed = len(healthy) - len(found_ml)
        alarms = failed + sum(ml > 0 for ml in found_ml)
        return cls(len(healthy), failed, alarms, sum(found_ml))

    @property
    def rate(self) -> float | None:
        """Share of alarms; None without a healthy case."""
        return self.alarms / self.cases if self.cases else None

    @property
    def ml_per_case(self) -> float | None:
        """Mean volume found in ml; None without a healthy case that did not fail."""
        masks = self.cases - self.failed
        return self.false_ml / masks if masks else None
