"""What is read of a folder of results, and what is refused to be ranked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from msgspec.structs import replace

from evaluation import settings
from evaluation.conditions import usual
from evaluation.errors import EvaluationError
from evaluation.gpu.curve_file import write_curve
from evaluation.ranking.outcomes import Missing, Outcomes, collect, without_gpu
from evaluation.ranking.ranking_file import Unranked
from evaluation.ranking.rules import Metric, RankingRules
from evaluation.ranking.selection import Selection
from evaluation.settings import Settings
from evaluation.states import State
from evaluation.store import Store
from evaluation.teams import challenge_of, find_teams
from tests.evaluation.challenges import FLARE23, FLARE24
from tests.evaluation.gpu.curves import curve
from tests.evaluation.ranking.results_folder import (
    infra_error,
    record,
    rules,
    write_submission,
    write_team,
)
from tests.evaluation.records import ACCURACY, USAGE, VRAM

EVERYTHING = Selection()
FAILURES = [state for state in State if state not in (State.OK, State.INFRA_ERROR)]


def read(
    results: Path,
    missing: Missing = "refuse",
    by: RankingRules = FLARE24.ranking,
    selection: Selection = EVERYTHING,
) -> Outcomes:
    challenge = structs.replace(FLARE24, ranking=by)
    return collect(find_teams(results)[0], challenge, missing, selection)


def refusal(
    results: Path,
    missing: Missing = "refuse",
    by: RankingRules = FLARE24.ranking,
    selection: Selection = EVERYTHING,
) -> str:
    with pytest.raises(EvaluationError) as caught:
        read(results, missing, by, selection)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_values_are_those_of_the_records(tmp_path: Path) -> None:
    write_team(tmp_path, "b", [record("y", 0.1, 0.2, 30.0, 40.0), record("x", 0.5, 0.6, 70.0, 8.0)])
    write_team(tmp_path, "a", [record("x", 0.7, 0.8, 9.0), record("y", state=State.TIMEOUT)])
    found = read(tmp_path)
    assert [team.name for team in found.teams] == ["a", "b"]
    assert found.cases == ("x", "y")
    assert found.scoring == "flare24"
    assert found.failed.tolist() == [[False, True], [False, False]]
    assert not found.missing.any()
    nan = np.nan
    expected = [
        [[0.7, nan], [0.5, 0.1]],
        [[0.8, nan], [0.6, 0.2]],
        [[9.0, nan], [70.0, 30.0]],
        [[0.0, nan], [8.0, 40.0]],
    ]
    np.testing.assert_array_equal(found.values, expected)


@pytest.mark.parametrize("state", FAILURES)
@pytest.mark.parametrize("unmeasured", [{}, {"vram": None, "usage": None}])
def test_every_state_that_is_the_teams_doing_is_a_failure_measured_or_not(
    tmp_path: Path, state: State, unmeasured: dict[str, Any]
) -> None:
    write_team(tmp_path, "a", [replace(record("x", state=state), **unmeasured), record("y")])
    assert read(tmp_path).failed.tolist() == [[True, False]]


def test_a_refused_team_has_no_place(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record("x"), record("y")])
    write_submission(tmp_path, "a", "ok")
    write_submission(tmp_path, "b", "refused", "no such image")
    found = read(tmp_path)
    assert [team.name for team in found.teams] == ["a"]
    assert found.unranked == (Unranked("b", "refused: no such image"),)
    assert not found.failed.any()


@pytest.mark.parametrize(
    ("selection", "teams", "cases", "left"),
    [
        (Selection(frozenset("xy")), "abc", "xy", {"z": "not among --cases"}),
        (Selection(without=frozenset("bz")), "ac", "xy", {"z": "as asked"}),
        (Selection(only=frozenset("ab")), "ab", "xyz", {}),
        (Selection(only=frozenset("acx")), "ac", "x", {"y": "as asked", "z": "as asked"}),
        (Selection(only=frozenset("x"), without=frozenset("a")), "bc", "x", {"y": "as asked"}),
    ],
)
def test_teams_and_cases_are_ranked_as_asked(
    tmp_path: Path, selection: Selection, teams: str, cases: str, left: dict[str, str]
) -> None:
    for name in "abc":
        write_team(tmp_path, name, [record(case) for case in "xyz"])
    found = read(tmp_path, selection=selection)
    assert "".join(team.name for team in found.teams) == teams
    assert "".join(found.cases) == cases
    assert {one.case: one.reason for one in found.excluded}.items() >= left.items()
    assert {one.name for one in found.unranked} == set("abc") - set(teams)


def test_a_case_of_the_challenge_without_any_result_is_a_gap(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record("x")])
    assert "a, y: no result" in refusal(tmp_path, selection=Selection(frozenset("xy")))


@pytest.mark.parametrize(
    ("selection", "name"),
    [
        (Selection(without=frozenset(["teem"])), "teem"),
        (Selection(only=frozenset(["teem"])), "teem"),
        (Selection(cases=frozenset("x"), only=frozenset("y")), "y"),  # has a record, is not asked
    ],
)
def test_what_is_asked_for_must_be_there(tmp_path: Path, selection: Selection, name: str) -> None:
    write_team(tmp_path, "a", [record("x"), record("y")])
    said = refusal(tmp_path, selection=selection)
    assert said == f"{name}: no team and no case of these results; there are a"


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([record("x")], "b, y: no result"),
        ([record("x"), infra_error("y")], "b, y: infra_error: the engine is gone"),
        ([record("x"), replace(record("y"), accuracy=None)], "b, y: measured, but not scored"),
    ],
)
def test_a_gap_is_refused_unless_something_says_how_it_counts(
    tmp_path: Path, records: list[object], reason: str
) -> None:
    write_team(tmp_path, "a", [record("x"), record("y")])
    write_team(tmp_path, "b", records)  # type: ignore[arg-type]
    said = refusal(tmp_path)
    assert f"({reason})" in said
    assert "--missing failed" in said
    assert "--missing exclude" in said

    counted = read(tmp_path, "failed")
    assert counted.failed.tolist() == counted.missing.tolist() == [[False, False], [False, True]]
    assert counted.excluded == ()

    left_out = read(tmp_path, "exclude")
    assert left_out.cases == ("x",)
    assert not left_out.failed.any()
    (gap,) = left_out.excluded
    assert f"{gap.team}, {gap.case}: {gap.reason}" == reason


def test_many_gaps_are_one_line(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record(f"case_{i}") for i in range(400)])
    write_submission(tmp_path, "b", "ok")
    said = refusal(tmp_path)
    assert "all 400 cases (b, case_0: no result; b, case_1: no result;" in said
    assert "and 397 more" in said


def test_nothing_is_left(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record("x")])
    write_team(tmp_path, "b", [record("y")])
    assert "no case is left" in refusal(tmp_path, "exclude")
    assert read(tmp_path, "failed").failed.tolist() == [[False, True], [True, False]]


def test_no_team_is_left(tmp_path: Path) -> None:
    write_submission(tmp_path, "a", "refused", "no image")
    write_team(tmp_path, "b", [record("x")])
    said = refusal(tmp_path, selection=Selection(without=frozenset("b")))
    assert said.startswith("no team is left to rank (a: refused: no image; b: not ranked, as")


def test_nothing_was_scored(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [replace(record("x"), accuracy=None)])
    assert "nothing can be ranked" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("changed", "finding"),
    [
        ({"reference_sha256": "newer"}, "case x: a and b were judged by different references"),
        ({"scans_sha256": ("another",)}, "case x: a and b were judged by different scans"),
        (
            {"accuracy": replace(ACCURACY, classes={"Liver": (0.5, 0.5), "Lesion": (0.5, 0.5)})},
            "b, x has scores of Lesion, Liver, and flare24 has Lesion",
        ),
    ],
)
def test_results_of_other_files_or_scoring_are_not_mixed(
    tmp_path: Path, changed: dict[str, Any], finding: str
) -> None:
    write_team(tmp_path, "a", [record("w"), record("x")])
    write_team(tmp_path, "b", [record("w"), replace(record("x"), **changed)])
    assert finding in refusal(tmp_path)


def test_what_a_team_was_scored_by_is_known_of_its_settings(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record("x")])
    settings.save(Store(tmp_path / "a"), Settings("sha256:1", None, None, usual(FLARE24)))
    assert challenge_of(find_teams(tmp_path)[0]) == FLARE24
    assert read(tmp_path).scoring == "flare24"
    finer = structs.replace(FLARE24, scoring=structs.replace(FLARE24.scoring, decimals=6))
    write_team(tmp_path, "b", [record("x")])
    settings.save(Store(tmp_path / "b"), Settings("sha256:2", None, None, usual(finer)))
    assert "b was scored by flare24, whose rules are not those of flare24" in refusal(tmp_path)
    with pytest.raises(EvaluationError, match="a was run for flare24, b for flare24, or for other"):
        challenge_of(find_teams(tmp_path)[0])


def test_without_settings_it_is_the_default(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record("x")])
    assert challenge_of(find_teams(tmp_path)[0]) == FLARE24


def test_without_a_gpu_only_its_memory_is_left_out() -> None:
    assert without_gpu(FLARE24.ranking).metrics == FLARE24.ranking.metrics[:3]
    assert without_gpu(FLARE24.ranking).name == "flare24-without-gpu"
    assert without_gpu(FLARE23.ranking).metrics == FLARE23.ranking.metrics[:3]
    with pytest.raises(EvaluationError, match="test ranks by GPU memory alone"):
        without_gpu(rules(Metric("peak_vram_mib", "Peak", "smaller", failed=1e9)))


def test_what_was_not_measured_is_named(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record("x"), replace(record("y"), vram=None)])
    expected = "a, y: area_above_4096_mib_s was not measured; add --without-gpu"
    assert expected in refusal(tmp_path)
    assert read(tmp_path, by=without_gpu(FLARE24.ranking)).values.shape == (3, 1, 2)


def test_what_is_undefined_is_told_from_what_was_not_measured(tmp_path: Path) -> None:
    healthy = replace(ACCURACY, lesion_count=0, lesion_f1=None)
    write_team(tmp_path, "a", [record("x"), replace(record("y"), accuracy=healthy)])
    f1 = Metric("lesion_f1", "F1", "larger", failed=0.0)
    said = refusal(tmp_path, by=rules(f1))
    assert said.startswith("a, y: lesion_f1 is undefined, as where neither mask has a lesion; say")
    known = read(tmp_path, by=rules(replace(f1, undefined=1.0)))
    assert known.values.tolist() == [[[0.5, 1.0]]]


@pytest.mark.parametrize(
    ("column", "finding"),
    [("flare_time", "'flare_time', which is no column"), ("memory_api", "is 'v2', no number")],
)
def test_a_column_that_cannot_be_ranked_is_named(tmp_path: Path, column: str, finding: str) -> None:
    write_team(tmp_path, "a", [record("x")])
    assert finding in refusal(tmp_path, by=rules(Metric(column, "x", "smaller", failed=9.0)))


def test_another_tolerance_of_memory_is_computed_from_the_curve(tmp_path: Path) -> None:
    usage, vram = replace(USAGE, runtime_s=10.0), replace(VRAM, baseline_mib=100.0)
    write_team(tmp_path, "a", [replace(record("x"), usage=usage, vram=vram)])
    used = curve([-1, 0, 4, 10, 11], [100, 3148, 3148, 3148, 100])
    write_curve(find_teams(tmp_path)[0][0].store.curve("x"), used, 0.0)
    metric = Metric("area_above_2048_mib_s", "Area", "smaller", failed=1e9)
    # 3148 - 100 - 2048 MiB for 10 s.
    assert read(tmp_path, by=rules(metric)).values.tolist() == [[[pytest.approx(10_000.0)]]]


def test_a_missing_curve_is_named(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record("x")])
    metric = Metric("area_above_2048_mib_s", "Area", "smaller", failed=1e9)
    assert "curves/x.csv.gz" in refusal(tmp_path, by=rules(metric))
