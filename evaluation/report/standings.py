"""What `rank` made of the results, as the page shows it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from evaluation.errors import EvaluationError
from evaluation.ranking.ranking_file import Ranking, Standing, read_ranking
from evaluation.ranking.stability import interval
from evaluation.report.audience import Audience
from evaluation.report.metrics import brief
from evaluation.teams import Team

PODIUM = 3  # places


def read_standings(path: Path, teams: Sequence[Team], audience: Audience) -> dict[str, Any]:
    """Return the standings of a ranking.json, for those who read it.

    Raises EvaluationError when it is damaged, or was not made of the results of these teams.
    """
    ranking = read_ranking(path)
    _check(path, ranking, teams)
    own = ranking.methods[ranking.profile.method]
    return {
        "scoring": ranking.scoring,
        "profile": msgspec.to_builtins(ranking.profile),
        "cases": len(ranking.cases),
        "excluded": [
            {
                "case": audience.case(one.case),
                "team": one.team,
                "reason": audience.message(one.reason),
            }
            for one in sorted(ranking.excluded, key=lambda one: audience.case(one.case))
        ],
        "teams": [team.name for team in ranking.teams],
        "missing": [team.missing for team in ranking.teams],
        "scores": [brief(score) for score in own.scores],
        "figures": [
            {
                column: {
                    "mean": brief(mean),
                    "interval": [brief(bound) for bound in team.intervals[column]],
                    "place": own.metric_places[column][i],
                }
                for column, mean in team.means.items()
            }
            for i, team in enumerate(ranking.teams)
        ],
        "unranked": {team.name: audience.message(team.reason) for team in ranking.unranked},
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


def _check(path: Path, ranking: Ranking, teams: Sequence[Team]) -> None:
    """See that a ranking is of these results."""
    ranked = {team.name: team.digest for team in ranking.teams}
    known = ranked.keys() | {team.name for team in ranking.unranked}
    there = {team.name for team in teams}
    changed = {team.name for team in teams if ranked.get(team.name) not in (None, team.digest())}
    for names, finding in (
        (known - there, "of whom there are no results"),
        (there - known, "who were not there when it was made"),
        (changed, "whose results have changed since"),
    ):
        if names:
            raise EvaluationError(
                f"{path}: does not go with {', '.join(sorted(names))}, {finding}; rank them again"
            )


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
