"""How a challenge ranks, as data: metrics, weights, tolerances, and what a failed case counts.

A profile is a TOML file; those of profiles/ are known by name, and each is an example::

    name = "flare24"
    method = "rank-then-aggregate"  # which ranking decides; the other two are shown beside it
    alpha = 0.05                    # level of the significance tests

    [[metrics]]
    column = "flare_time_s"  # of results.csv, or area_above_N_mib_s: memory above N MiB over time
    name = "Time beyond 45 s (s)"
    better = "smaller"       # or "larger"
    weight = 1.0             # of this metric's ranks in the mean over metrics
    tolerance = 45.0         # optional: max(0, value - tolerance) is what is ranked
    failed = 3600.0          # of a failed case, before the tolerance: no value counts as worse
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import EvaluationError

Method = Literal["rank-then-aggregate", "aggregate-then-rank", "test-then-rank"]
METHODS: tuple[Method, ...] = get_args(Method)
BUILT_IN = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class Metric:
    """One column of results.csv and how it is ranked; raises ValueError for what cannot be."""

    column: str
    name: str
    better: Literal["larger", "smaller"]
    failed: float
    weight: float = 1.0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.better not in ("larger", "smaller"):
            raise ValueError(f'better is {self.better!r}, not "larger" or "smaller"')
        if not all(map(math.isfinite, (self.failed, self.weight, self.tolerance))):
            raise ValueError("failed, weight and tolerance must be finite")
        if self.weight <= 0:
            raise ValueError(f"weight is {self.weight:g}, must be above 0")
        if self.tolerance < 0 or (self.tolerance > 0 and self.better == "larger"):
            raise ValueError("a tolerance must be above 0, and needs a metric that is better small")

    def ranked(self, values: NDArray[np.float64], failed: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return what is ranked of measured values: none worse than a failure, less the tolerance.

        values, failed: any one shape; a value where `failed` holds is not looked at.
        """
        if self.better == "larger":
            return np.where(failed, self.failed, np.maximum(values, self.failed))
        worst = np.where(failed, self.failed, np.minimum(values, self.failed))
        return np.maximum(worst - self.tolerance, 0.0) if self.tolerance else worst


@dataclass(frozen=True)
class Profile:
    """A challenge's ranking."""

    name: str
    method: Method
    metrics: tuple[Metric, ...]
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}, not one of {', '.join(METHODS)}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha:g}, must be between 0 and 1")
        columns = [metric.column for metric in self.metrics]
        if not columns or len(set(columns)) < len(columns):
            raise ValueError("needs [[metrics]], each with a column of its own")


def built_in() -> dict[str, Path]:
    """Return the profiles that are known by name."""
    return dict(sorted((path.stem, path) for path in BUILT_IN.glob("*.toml")))


def profiles_without(column: str) -> list[str]:
    """Return the names of the built-in profiles that do not rank a column."""
    columns = {name: {one.column for one in load_profile(name).metrics} for name in built_in()}
    return [name for name in columns if column not in columns[name]]


def load_profile(name: str) -> Profile:
    """Return a built-in profile by its name, or the one in a TOML file.

    Raises EvaluationError that names the file, what is wrong with it and what is known.
    """
    known = built_in()
    path = known.get(name, Path(name))
    try:
        return _profile(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise EvaluationError(
            f"--profile {name}: no such file, and no profile of that name; there are"
            f" {', '.join(known)}"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise EvaluationError(
            f"{path}: not a ranking profile ({error}); {BUILT_IN} has examples"
        ) from error


def _profile(content: dict[str, Any]) -> Profile:
    metrics = tuple(Metric(**metric) for metric in content.get("metrics", ()))
    return Profile(**content | {"metrics": metrics})
