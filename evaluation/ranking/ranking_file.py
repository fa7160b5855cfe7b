"""ranking.json: everything that `rank` found out, for whoever makes pages and plots of it.

Its one owner: `Ranking` and the classes in it are the schema, field by field; docs/formats.md shows
a file.

Whatever is one number a team is in the order of `teams`, which is that of the places of the
challenge's own method, names within a shared place in alphabetical order. Dictionaries by metric
have its column as the key, dictionaries by method its name.
"""

from pathlib import Path
from typing import Literal

from msgspec import Struct

from evaluation import json_file
from evaluation.errors import EvaluationError
from evaluation.ranking.rules import Method, RankingRules


class RankedTeam(Struct, frozen=True, forbid_unknown_fields=True):
    """One submission over all cases.

    digest: of its records, by which a ranking of other records is known. failed: how many of the
    cases count with the challenge's penalties, `missing` ones among them: those without a result,
    which count as failed because --missing failed asks for it. means: of each metric, of what was
    ranked: penalties in the place of failed cases, tolerances subtracted. intervals: between which
    95 % of the resamples have the mean.
    """

    name: str
    digest: str
    failed: int
    missing: int
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]]


class Unranked(Struct, frozen=True, forbid_unknown_fields=True):
    """A team that has no place, and why."""

    name: str
    reason: str


class Standing(Struct, frozen=True, forbid_unknown_fields=True):
    """The ranking by one method.

    scores: one a team, the weighted mean of its `metric_ranks`; smaller is better.
    places: one a team, 1 is the best; equal scores share a place and the next ones are left out, as
    1, 2, 2, 4.
    metric_ranks: of each metric one a team, averages where tied (1.5, 1.5, 3):
    rank-then-aggregate, the mean of its ranks case by case; aggregate-then-rank, the rank of its
    mean; test-then-rank, the rank of how many other teams it is significantly better than.
    metric_places: the places by these alone.
    place_counts: one row a team; column i says in how many resamples it came to place i + 1.
    taus: one a resample, Kendall's tau-b between its places and `places`; None: undefined, because
    all teams share one place.
    """

    scores: tuple[float, ...]
    places: tuple[int, ...]
    metric_ranks: dict[str, tuple[float, ...]]
    metric_places: dict[str, tuple[int, ...]]
    place_counts: tuple[tuple[int, ...], ...]
    taus: tuple[float | None, ...]


class Excluded(Struct, frozen=True, forbid_unknown_fields=True):
    """A case that was ranked for no team. team: whose result is missing; empty: nobody's."""

    case: str
    team: str
    reason: str


class Ranking(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ranking.json holds.

    case_ranks: of each metric one row a team, its rank in each of `cases`, averages where tied.
    significance: of each metric one row a team, p that it is better than the team of the column:
    one-sided Wilcoxon signed rank test over the cases, Holm-adjusted over all ordered pairs;
    significant where at most `profile.alpha`; 1 on the diagonal.
    """

    format: Literal[2] = 2
    scoring: str
    profile: RankingRules
    resamples: int
    seed: int
    cases: tuple[str, ...]
    excluded: tuple[Excluded, ...]
    teams: tuple[RankedTeam, ...]
    unranked: tuple[Unranked, ...]
    methods: dict[Method, Standing]
    case_ranks: dict[str, tuple[tuple[float, ...], ...]]
    significance: dict[str, tuple[tuple[float, ...], ...]]


def write_ranking(path: Path, ranking: Ranking) -> None:
    """Write ranking.json; it is as it was or complete."""
    json_file.write(path, ranking, indent=None)


def read_ranking(path: Path) -> Ranking:
    """Read ranking.json; raises EvaluationError when it is missing, damaged or another's."""
    what, remedy = "a ranking of this version", "rank the results again"
    ranking = json_file.read(path, Ranking, what, remedy)
    if ranking is None:
        raise EvaluationError(
            f"{path}: no such file; `python -m evaluation rank RESULTS_DIR` writes it"
        )
    return ranking
