"""Challenges: what a case may take, how masks are scored, how teams are ranked, what is called.

Each is a TOML file. Those of this folder are known by name; a file of your own is a copy of one of
them with other values. In [ranking.metrics] the challenge's own limits may stand by their names:
`tolerance = "time_s"`, and {time_s}, {vram_mib} and {vram_gb} in a column or a name.
"""

import contextlib
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from evaluation.contracts import Contract
from evaluation.errors import EvaluationError
from evaluation.ranking.rules import RankingRules
from evaluation.scoring.rules import ScoringRules

FOLDER = Path(__file__).parent
DEFAULT = "flare24"

Positive = Annotated[float, Meta(gt=0)]


class CaseLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a case may take.

    time_s: around the whole container; beyond it a case costs rank. vram_mib: GPU memory above the
    baseline, likewise. None: the challenge has no such limit, or it is not known. timeout_s: where
    a case is ended.
    """

    timeout_s: Positive
    time_s: Positive | None = None
    vram_mib: Positive | None = None


class Challenge(Struct, frozen=True, forbid_unknown_fields=True):
    """One challenge."""

    name: str
    limits: CaseLimits
    scoring: ScoringRules
    ranking: RankingRules
    contract: Contract


def as_gb(mib: float) -> str:
    """Return a limit of memory for people, as "1.5 GB"."""
    return f"{mib / 1024:g} GB"


def built_in() -> dict[str, Path]:
    """Return the challenges that are known by name."""
    return dict(sorted((path.stem, path) for path in FOLDER.glob("*.toml")))


def load(name: str) -> Challenge:
    """Return a built-in challenge by its name, or the one in a TOML file, called like the file.

    Raises EvaluationError that names the file, the key, what is wrong with it and what is known.
    """
    known = built_in()
    path = known.get(name, Path(name))
    try:
        content = {"name": path.stem, **tomllib.loads(path.read_text(encoding="utf-8"))}
        # What is missing, or no table, msgspec names.
        with contextlib.suppress(AttributeError, KeyError, TypeError):
            _complete_ranking(content)
        return msgspec.convert(content, Challenge)
    except FileNotFoundError as error:
        raise EvaluationError(
            f"{name}: no such file, and no challenge of that name; there are {', '.join(known)}"
        ) from error
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{path}: not a challenge: {_finding(error)}; compare with {known[DEFAULT]}"
        ) from error


def _complete_ranking(content: dict[str, Any]) -> None:
    """Put the challenge's name and its own limits where its ranking speaks of them."""
    limits, ranking = dict(content["limits"]), content["ranking"]
    if "vram_mib" in limits:
        limits["vram_gb"] = limits["vram_mib"] / 1024
    ranking.setdefault("name", content["name"])
    for metric in ranking["metrics"]:
        try:
            for key in sorted(metric.keys() & {"column", "name"}):
                metric[key] = metric[key].format_map(limits)
            if isinstance(metric.get("tolerance"), str):
                metric["tolerance"] = limits[metric["tolerance"]]
        except KeyError as error:
            raise ValueError(f"ranking.metrics: {error} is not in [limits]") from error


def _finding(error: Exception) -> str:
    """Return what msgspec says ("Expected ... - at `$.limits.time_s`") with the key in front."""
    finding, _, key = str(error).partition(" - at `$.")
    return f"{key.rstrip('`')}: {finding}" if key else finding
