"""What `rank` made of the results, as the page shows it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from evaluation.errors import EvaluationError
from evaluation.ranking.ranking_file import Standing, read_ranking
from evaluation.ranking.stability import interval
from evaluation.report.metrics import brief
from evaluation.teams import RANKING

PODIUM = 3  # places


def read_standings(results: Path, teams: Sequence[str]) -> dict[str, Any] | None:
    """Return the standings of ranking.json, or None where `rank` has not been run.

    Teams that are not in it have no place. Raises EvaluationError when it is damaged, or has a
    team that is not among `teams`.
    """
    path = results / RANKING / "ranking.json"
    if not path.exists():
        return None
    ranking = read_ranking(path)
    gone = [team.name for team in ranking.teams if team.name not in teams]
    if gone:
        raise EvaluationError(
            f"{path}: ranks {', '.join(gone)}, of whom there are no results; rank them again"
        )
    own = ranking.methods[ranking.profile.method]
    return {
        "scoring": ranking.scoring,
        "profile": msgspec.to_builtins(ranking.profile),
        "cases": len(ranking.cases),
        "excluded": msgspec.to_builtins(ranking.excluded),
        "teams": [team.name for team in ranking.teams],
        "missing": [team.missing for team in ranking.teams],
        "scores": [brief(score) for score in own.scores],
        "places": {method: one.places for method, one in ranking.methods.items()},
        "resamples": ranking.resamples,
        "place_counts": own.place_counts,
        "place_bounds": [interval(np.array(counts)) for counts in own.place_counts],
        "tau": {method: _taus(one) for method, one in ranking.methods.items()},
        "podium": {column: _podium(ranks) for column, ranks in ranking.case_ranks.items()},
        "significance": {
            column: [[brief(p) for p in row] for row in rows]
            for column, rows in ranking.significance.items()
        },
    }


def _taus(standing: Standing) -> dict[str, object] | None:
    """Return the median and the quartiles of Kendall's tau; None where it is never defined."""
    defined = [tau for tau in standing.taus if tau is not None]
    if not defined:
        return None
    q1, median, q3 = np.quantile(defined, (0.25, 0.5, 0.75))
    return {"q1": brief(q1), "median": brief(median), "q3": brief(q3), "n": len(defined)}


def _podium(ranks: Sequence[Sequence[float]]) -> list[list[int]]:
    """Return in how many cases each team was first, second and third; who ties shares a place.

    ranks: one row a team, one column a case, averages where tied.
    """
    table = np.array(ranks).reshape(len(ranks), -1)
    places = 1 + (table[None] < table[:, None]).sum(axis=1)
    return [[int((row == place).sum()) for place in range(1, PODIUM + 1)] for row in places]
