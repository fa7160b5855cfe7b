"""Which folders are teams, and what the command line says of those that are not right."""

import json
from pathlib import Path

import pytest

from evaluation.__main__ import main
from evaluation.errors import EvaluationError
from evaluation.page.teams import Entry, find_teams
from tests.evaluation.page.simulated import simulate, write_refused, write_simulated_ranking


def test_a_team_has_cases_or_a_submission(tmp_path: Path) -> None:
    simulate(tmp_path, ["b", "a"], 2, samples=10)
    write_refused(tmp_path / "late", "too late")
    for name in ("ranking", ".work", "notes"):
        (tmp_path / name).mkdir()
    teams, others = find_teams(tmp_path)
    assert [(team.name, len(team.cases())) for team in teams] == [("a", 2), ("b", 2), ("late", 0)]
    assert teams[2].entry == Entry("late.tar.gz", None, "refused", "too late")
    assert others == [tmp_path / "notes"]


def test_no_folder_no_team_and_one_run_are_said(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="nowhere: no such folder"):
        find_teams(tmp_path / "nowhere")
    with pytest.raises(EvaluationError, match="holds no team"):
        find_teams(tmp_path)
    simulate(tmp_path, ["a"], 1, samples=10)
    with pytest.raises(EvaluationError, match="holds the cases of one run; give the folder above"):
        find_teams(tmp_path / "a")


@pytest.mark.parametrize("text", ["", "[]", "3", '{"archive": "a"}', '{"surprise": 1}'])
def test_a_damaged_submission_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "submission.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"a/submission\.json: not what `batch` writes"):
        find_teams(tmp_path)


def error_of(results: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["report", str(results)]) == 1
    assert not (results / "report.html").exists()
    return capsys.readouterr().err


def test_a_damaged_record_or_curve_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(tmp_path, ["a"], 1, samples=10)
    curve = tmp_path / "a/curves/FLARE_Ts_0001.csv.gz"
    content = curve.read_bytes()
    curve.write_bytes(b"")
    assert str(curve) in error_of(tmp_path, capsys)
    curve.write_bytes(content)
    record = tmp_path / "a/cases/FLARE_Ts_0001.json"
    record.write_text("{}")
    assert f"error: {record}: not a record of this version" in error_of(tmp_path, capsys)


def test_a_ranking_of_teams_that_are_gone_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate(tmp_path, ["a", "b"], 2, samples=10)
    write_simulated_ranking(tmp_path)
    (tmp_path / "b").rename(tmp_path.parent / "gone")
    assert "ranks b, of whom there are no results; rank them again" in error_of(tmp_path, capsys)
    (tmp_path / "ranking/ranking.json").write_text(json.dumps({"format": 1}))
    assert "ranking.json: not a ranking of this version" in error_of(tmp_path, capsys)


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(tmp_path, ["a"], 1, samples=10)
    (tmp_path / "notes").mkdir()
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert f"notice: {tmp_path}/notes: holds neither cases/ nor submission.json" in said
    assert "notice: no ranking.json, so no places" in said
    assert f"{tmp_path}/page.html" in said
    assert not (tmp_path / "report.html").exists()
