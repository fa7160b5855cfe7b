import hashlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from evaluation.errors import EvaluationError
from evaluation.ranking.ranking_file import (
    RankedTeam,
    Ranking,
    Standing,
    Unranked,
    write_ranking,
)
from evaluation.report.audience import Audience, organisers
from evaluation.report.standings import read_standings
from evaluation.store import Store
from evaluation.teams import Team
from tests.evaluation.challenges import FLARE24
from tests.evaluation.records import RECORD

OF_NO_RECORD = hashlib.sha256().hexdigest()
STANDING = Standing(
    scores=(1.25, 1.75, 3.0),
    places=(1, 2, 3),
    metric_ranks={},
    metric_places={},
    place_counts=((90, 10, 0), (10, 88, 2), (0, 2, 98)),
    taus=(1.0, 0.5, None, 0.0),
)
RANKING = Ranking(
    scoring="flare24",
    profile=FLARE24.ranking,
    resamples=100,
    seed=0,
    cases=("case_1", "case_2", "case_3"),
    excluded=(),
    teams=tuple(RankedTeam(name, OF_NO_RECORD, 0, 0, {}, {}) for name in ("b", "a", "c")),
    unranked=(Unranked("late", "refused: no image"),),
    methods={"rank-then-aggregate": STANDING},
    # b and a tie in the second case, all three in the third.
    case_ranks={"dsc": ((1.0, 1.5, 2.0), (2.0, 1.5, 2.0), (3.0, 3.0, 2.0))},
    significance={"dsc": ((1.0, 0.04, 1 / 3), (1.0, 1.0, 0.01), (1.0, 1.0, 1.0))},
)


def standings(
    folder: Path, ranking: Ranking = RANKING, audience: Audience | None = None
) -> dict[str, Any]:
    write_ranking(folder / "ranking.json", ranking)
    teams = teams_of(folder, "a", "b", "c", "late")
    return read_standings(folder / "ranking.json", teams, audience or organisers())


def teams_of(folder: Path, *names: str) -> list[Team]:
    return [Team(name, Store(folder / name), None) for name in names]


def test_who_ties_shares_a_place_of_the_podium(tmp_path: Path) -> None:
    # c is third once, and first with everybody else in the last case.
    assert standings(tmp_path)["podium"] == {"dsc": [[3, 0, 0], [2, 1, 0], [1, 0, 2]]}


def test_the_places_of_95_in_100_resamples(tmp_path: Path) -> None:
    assert standings(tmp_path)["place_bounds"] == [(1, 2), (1, 2), (3, 3)]


def test_kendalls_tau_leaves_out_where_it_is_undefined(tmp_path: Path) -> None:
    tau = {"q1": 0.25, "median": 0.5, "q3": 0.75, "n": 3}
    assert standings(tmp_path)["tau"] == {"rank-then-aggregate": tau}
    none = replace(STANDING, taus=(None,))
    never = replace(RANKING, methods={"rank-then-aggregate": none})
    assert standings(tmp_path, never)["tau"] == {"rank-then-aggregate": None}


def test_teams_stay_in_the_rankings_order(tmp_path: Path) -> None:
    content = standings(tmp_path)
    assert content["teams"] == ["b", "a", "c"]
    assert content["places"] == {"rank-then-aggregate": (1, 2, 3)}
    assert content["scores"] == [1.25, 1.75, 3.0]


@pytest.mark.parametrize(
    ("names", "finding"),
    [
        ("a b c", "does not go with late, of whom there are no results; rank them again"),
        ("a b c late new", "does not go with new, who were not there when it was made"),
    ],
)
def test_a_ranking_of_other_teams_is_refused(tmp_path: Path, names: str, finding: str) -> None:
    write_ranking(tmp_path / "ranking.json", RANKING)
    with pytest.raises(EvaluationError, match=finding):
        read_standings(tmp_path / "ranking.json", teams_of(tmp_path, *names.split()), organisers())


def test_a_ranking_of_other_records_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "b").save(RECORD)
    with pytest.raises(EvaluationError, match="go with b, whose results have changed since"):
        standings(tmp_path)


@pytest.mark.parametrize("cases", [(), ("case_1",)])
def test_few_cases_are_no_trouble(tmp_path: Path, cases: tuple[str, ...]) -> None:
    ranks = {"dsc": tuple(tuple(float(place) for _ in cases) for place in (1, 2, 3))}
    podium = standings(tmp_path, replace(RANKING, cases=cases, case_ranks=ranks))["podium"]
    number = len(cases)
    assert podium == {"dsc": [[number, 0, 0], [0, number, 0], [0, 0, number]]}
