from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.errors import EvaluationError
from evaluation.teams import Entry, find_teams
from tests.evaluation.ranking.results_folder import record, write_submission, write_team


def test_teams_are_found_by_name_and_other_folders_named(tmp_path: Path) -> None:
    write_team(tmp_path, "b", [record("y"), record("x")])
    write_submission(tmp_path, "a", "refused", "not an archive")
    for folder in ("ranking", ".work", "notes"):
        (tmp_path / folder).mkdir()
    (tmp_path / "report.html").touch()
    (a, b), others = find_teams(tmp_path)
    assert (a.name, a.is_refused, a.records()) == ("a", True, [])
    assert a.entry == Entry("a.tar.gz", None, "refused", "not an archive")
    assert (b.name, b.is_refused, b.entry) == ("b", False, None)
    assert b.cases() == ["x", "y"]
    assert b.records() == [record("x"), record("y")]
    assert others == [tmp_path / "notes"]


def test_a_folder_without_teams_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such folder"):
        find_teams(tmp_path / "absent")
    with pytest.raises(EvaluationError, match="holds no team"):
        find_teams(tmp_path)
    write_team(tmp_path, "a", [record("x")])
    with pytest.raises(EvaluationError, match="give the folder above"):
        find_teams(tmp_path / "a")


def test_a_team_that_is_called_ranking_does_not_vanish(tmp_path: Path) -> None:
    write_team(tmp_path, "a", [record("x")])
    write_submission(tmp_path, "ranking", "refused", "a team cannot be called ranking")
    teams, _ = find_teams(tmp_path)
    assert [(team.name, team.is_refused) for team in teams] == [("a", False), ("ranking", True)]
    write_team(tmp_path, "ranking", [record("x")])
    with pytest.raises(EvaluationError, match=r"/ranking: no team can be called ranking.*; rename"):
        find_teams(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "3"])
def test_a_damaged_submission_is_named(tmp_path: Path, content: str) -> None:
    write_submission(tmp_path, "a", "ok")
    (tmp_path / "a" / "submission.json").write_text(content)
    with pytest.raises(EvaluationError, match=r"a/submission\.json: not what `batch` writes"):
        find_teams(tmp_path)


def test_an_unknown_state_is_named(tmp_path: Path) -> None:
    write_submission(tmp_path, "a", "maybe")
    with pytest.raises(EvaluationError, match=r"submission\.json: .*'maybe' - at `\$\.state`"):
        find_teams(tmp_path)
