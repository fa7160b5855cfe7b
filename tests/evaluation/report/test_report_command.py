"""What the command line says of results that are not right."""

import json
from pathlib import Path

import pytest

from evaluation.__main__ import main
from tests.evaluation.report.simulated import simulate


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
    assert main(["rank", str(tmp_path)]) == 0
    (tmp_path / "b").rename(tmp_path.parent / "gone")
    said = error_of(tmp_path, capsys)
    assert "does not go with b, of whom there are no results; rank them again" in said
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
