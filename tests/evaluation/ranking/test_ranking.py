"""Whole rankings: FLARE's by hand, and what must change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from benchmarks.ranking import simulated
from evaluation.ranking.outcomes import Outcomes
from evaluation.ranking.ranking import rank, ranked_values
from evaluation.ranking.ranking_file import Ranking
from evaluation.ranking.rules import METHODS, Metric, RankingRules
from evaluation.store import Store
from evaluation.teams import Team
from tests.evaluation import challenges
from tests.evaluation.ranking.results_folder import DSC, TIME, outcomes, rules

FLARE24 = challenges.FLARE24.ranking


def places(ranking: Ranking) -> dict[str, int]:
    own = ranking.methods[ranking.profile.method].places
    return {team.name: place for team, place in zip(ranking.teams, own, strict=True)}


def scores(ranking: Ranking) -> dict[str, float]:
    own = ranking.methods[ranking.profile.method].scores
    return {team.name: score for team, score in zip(ranking.teams, own, strict=True)}


# Time less 45 s: a 0, 5, failed (3555); b 0, 1, 15; c 55, 0, 15.
# Ranks by DSC:   a 1.5, 1.5, 3;  b 3, 1.5, 1;   c 1.5, 3, 2.      Means 12/6, 11/6, 13/6.
# Ranks by time:  a 1.5, 3, 3;    b 1.5, 2, 1.5; c 3, 1, 1.5.      Means 15/6, 10/6, 11/6.
BY_HAND = outcomes(
    {"a": [0.9, 0.8, None], "b": [0.8, 0.8, 0.7], "c": [0.9, 0.6, 0.5]},
    {"a": [44.0, 50.0, None], "b": [10.0, 46.0, 60.0], "c": [100.0, 45.0, 60.0]},
)


def test_flare_by_hand() -> None:
    ranking = rank(BY_HAND, rules(DSC, TIME), resamples=10)
    assert scores(ranking) == pytest.approx({"a": 2.25, "b": 1.75, "c": 2.0})
    assert places(ranking) == {"a": 3, "b": 1, "c": 2}
    assert [team.name for team in ranking.teams] == ["b", "c", "a"]
    assert ranking.case_ranks["dsc"] == ((3, 1.5, 1), (1.5, 3, 2), (1.5, 1.5, 3))
    assert ranking.case_ranks["flare_time_s"] == ((1.5, 2, 1.5), (3, 1, 1.5), (1.5, 3, 3))
    ranks = ranking.methods["rank-then-aggregate"].metric_ranks
    assert ranks["flare_time_s"] == pytest.approx((10 / 6, 11 / 6, 15 / 6))
    for column, means in (("dsc", (2.3, 2, 1.7)), ("flare_time_s", (16, 70, 3560))):
        expected = [mean / 3 for mean in means]
        assert [team.means[column] for team in ranking.teams] == pytest.approx(expected)
    assert [team.failed for team in ranking.teams] == [0, 0, 1]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (
            rules(DSC, structs.replace(TIME, weight=0.5)),
            {"a": (12 + 7.5) / 9, "b": (11 + 5) / 9, "c": (13 + 5.5) / 9},
        ),
        # Means by DSC 0.57, 0.77, 0.67, by time 1187, 5, 23.
        (rules(DSC, TIME, method="aggregate-then-rank"), {"a": 3, "b": 1, "c": 2}),
    ],
)
def test_other_rules_by_hand(by: RankingRules, expected: dict[str, float]) -> None:
    assert scores(rank(BY_HAND, by, resamples=10)) == pytest.approx(expected)


def test_teams_with_the_same_score_share_a_place() -> None:
    # By DSC a, b, c, by time b, a, c, by memory all alike.
    tied = outcomes(
        {"c": [0.1], "b": [0.5], "a": [0.9]},
        {"c": [90.0], "b": [50.0], "a": [60.0]},
        {"c": [7.0], "b": [7.0], "a": [7.0]},
    )
    area = Metric("area_mib_s", "Area", "smaller", failed=1e9)
    ranking = rank(tied, rules(DSC, TIME, area), resamples=10)
    assert places(ranking) == {"a": 1, "b": 1, "c": 3}
    assert [team.name for team in ranking.teams] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("times_s", "expected"),
    [
        # What is within the tolerance is the best and tied, and nothing is worse than a failure.
        ((1.0, 44.9, 45.0, 45.1), (1, 1, 1, 4)),
        ((5000.0, None, 3600.0, 3599.0), (2, 2, 2, 1)),
    ],
)
def test_times_by_hand(times_s: tuple[float | None, ...], expected: tuple[int, ...]) -> None:
    table = {name: [time_s] for name, time_s in zip("abcd", times_s, strict=True)}
    ranking = rank(outcomes(table), rules(TIME), resamples=2)
    assert places(ranking) == dict(zip("abcd", expected, strict=True))


def test_a_metric_has_places_and_intervals_of_its_own() -> None:
    given = outcomes(
        {"a": [0.9, 0.7], "b": [0.6, 0.6], "c": [None, 0.6]},
        {"a": [90.0, 50.0], "b": [10.0, 44.0], "c": [None, 40.0]},
    )
    ranking = rank(given, rules(DSC, TIME, method="aggregate-then-rank"), resamples=500)
    own = ranking.methods["aggregate-then-rank"]
    assert [team.name for team in ranking.teams] == ["a", "b", "c"]
    assert own.metric_places == {"dsc": (1, 2, 3), "flare_time_s": (2, 1, 3)}
    a, b, c = ranking.teams
    assert b.intervals == {"dsc": (0.6, 0.6), "flare_time_s": (0.0, 0.0)}
    # Of two cases a quarter of the resamples has the one twice, and a quarter the other.
    assert a.intervals["dsc"] == pytest.approx((0.7, 0.9))
    assert a.intervals["flare_time_s"] == pytest.approx((5.0, 45.0))
    assert c.intervals["dsc"] == pytest.approx((0.0, 0.6)), "a failure is drawn like any other"


def test_one_team_and_one_case() -> None:
    ranking = rank(outcomes({"a": [0.5]}), rules(DSC), resamples=5)
    for standing in ranking.methods.values():
        assert standing.places == (1,)
        assert standing.place_counts == ((5,),)
        assert standing.taus == (None,) * 5


def shuffled(given: Outcomes, seed: int) -> Outcomes:
    """Return the same outcomes with teams and cases in another order."""
    draw = np.random.default_rng(seed)
    cases = draw.permutation(len(given.cases))
    other = replace(
        given,
        cases=tuple(given.cases[i] for i in cases),
        values=given.values[:, :, cases],
        failed=given.failed[:, cases],
        missing=given.missing[:, cases],
    )
    return other.in_order(draw.permutation(len(given.teams)).tolist())


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_teams_and_cases_changes_nothing(seed: int) -> None:
    given = simulated(8, 40, seed)
    one = rank(given, FLARE24, resamples=20)
    other = rank(shuffled(given, seed), FLARE24, resamples=20)
    assert [team.name for team in other.teams] == [team.name for team in one.teams]
    for team, same in zip(other.teams, one.teams, strict=True):
        assert team.means == pytest.approx(same.means)
        assert team.failed == same.failed
    for method in METHODS:
        assert other.methods[method].places == one.methods[method].places
        assert other.methods[method].scores == pytest.approx(one.methods[method].scores)
    for column, p in one.significance.items():
        np.testing.assert_allclose(other.significance[column], p, rtol=1e-9)


def test_the_order_of_teams_does_not_change_a_resample() -> None:
    given = simulated(8, 40)
    one = rank(given, FLARE24, resamples=50)
    other = rank(given.in_order(range(7, -1, -1)), FLARE24, resamples=50)
    for method in METHODS:
        assert other.methods[method].place_counts == one.methods[method].place_counts
        assert other.methods[method].taus == one.methods[method].taus


@pytest.mark.parametrize("seed", range(3))
def test_a_duplicated_team_shares_its_place_in_every_resample(seed: int) -> None:
    given = simulated(8, 40, seed)
    twice = given.in_order([*range(8), 3])
    twin = Team("twin", Store(given.teams[3].store.folder), None)
    ranking = rank(replace(twice, teams=(*given.teams, twin)), FLARE24, resamples=50)
    names = [team.name for team in ranking.teams]
    one, other = names.index(given.teams[3].name), names.index("twin")
    for standing in ranking.methods.values():
        assert standing.places[one] == standing.places[other]
        assert standing.place_counts[one] == standing.place_counts[other]
    for p in ranking.significance.values():
        assert p[one][other] == p[other][one] == 1


def test_better_in_every_case_is_first_by_every_method() -> None:
    given = simulated(6, 60)
    best = np.array([1.0, 1.0, 1.0, 0.0])[:, None]
    given.values[:, 2] = best
    given.failed[2] = False
    ranking = rank(given, FLARE24, resamples=20)
    assert ranking.teams[0].name == given.teams[2].name
    for standing in ranking.methods.values():
        assert standing.places[0] == 1
        assert standing.place_counts[0][0] == 20


def test_counts_and_taus_are_those_of_the_resamples() -> None:
    ranking = rank(simulated(5, 30), FLARE24, resamples=100)
    for standing in ranking.methods.values():
        assert [sum(row) for row in standing.place_counts] == [100] * 5
        assert len(standing.taus) == 100
    assert rank(simulated(5, 30), FLARE24, resamples=100) == ranking
    assert rank(simulated(5, 30), FLARE24, resamples=100, seed=1).methods != ranking.methods


def test_what_is_ranked_of_a_metric() -> None:
    """Values 3, 50, 70 and a failure: none worse than that, less the tolerance."""
    given = outcomes({"a": [3.0, 50.0, 70.0, None]}, {"a": [0.5, 0.0, 1.0, None]})
    time = Metric("t", "Time", "smaller", failed=60.0, tolerance=45.0)
    dsc = Metric("d", "DSC", "larger", failed=0.0)
    assert ranked_values(given, rules(time, dsc)).tolist() == [
        [[0.0, 5.0, 15.0, 15.0]],
        [[0.5, 0.0, 1.0, 0.0]],
    ]
