"""benchmarks.log: what was measured is kept, and what is left is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.log import Log, Time, minutes
from benchmarks.sizes.record import Measurement
from evaluation.errors import EvaluationError

SETTING = {"machine": "a", "app": "1"}
RUN = Measurement("huang", 8, "app", 0, wall_s=2.0, stages={"network": 1.5})


def test_what_was_measured_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    Log(file, Measurement, SETTING, resume=False).add(RUN)
    again = Log(file, Measurement, SETTING, resume=True)
    assert again.runs == [RUN]
    assert again.has(RUN.key)
    assert not again.has(("huang", 8, "app", 1))
    assert [json.loads(li)["machine"] for li in file.read_text().splitlines()[:1]] == ["a"]


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    Log(file, Measurement, SETTING, resume=False).add(RUN)
    assert Log(file, Measurement, SETTING, resume=False).runs == []
    assert Log(file, Measurement, SETTING, resume=True).runs == []


def test_a_failure_is_tried_again_and_replaced(tmp_path: Path) -> None:
    log = Log(tmp_path / "runs.jsonl", Measurement, SETTING, resume=True)
    log.add(Measurement(*RUN.key, error="exit code 1"))
    assert not log.has(RUN.key)
    log.add(RUN)
    assert log.runs == [RUN]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"machine": "b", "app": "1"}, "machine was 'a' and is 'b'"),
        ({"machine": "a"}, "app was '1' and is None"),
    ],
)
def test_another_setting_is_not_taken_up(
    tmp_path: Path, setting: dict[str, str], message: str
) -> None:
    file = tmp_path / "runs.jsonl"
    Log(file, Measurement, SETTING, resume=False).add(RUN)
    before = file.read_text()
    with pytest.raises(EvaluationError, match=message):
        Log(file, Measurement, setting, resume=True)
    assert file.read_text() == before


@pytest.mark.parametrize(
    "content", ["", "{", "5", "null", "[1]", '{"machine": "a", "app": "1"}\n{"foreign": 1}\n']
)
def test_another_file_is_not_taken_up(tmp_path: Path, content: str) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(content)
    with pytest.raises(EvaluationError, match="not of this version"):
        Log(file, Measurement, SETTING, resume=True)


def test_time_is_up_after_so_many_minutes() -> None:
    assert not Time(None).is_up()
    assert not Time(1).is_up()
    assert Time(0).is_up()


def test_what_is_left_is_said(tmp_path: Path) -> None:
    log = Log(tmp_path / "runs.jsonl", Measurement, SETTING, resume=False)
    plan = [RUN.key, ("huang", 8, "app", 1)]
    assert list(log.lacking(plan, Time(None))) == plan
    assert list(log.lacking(plan, Time(0))) == []
    log.add(RUN)
    assert list(log.lacking(plan, Time(None))) == plan[1:]
    assert log.rest(plan) == "1 of 2 runs are left: call again with --resume"
    assert log.rest(plan[:1]) == ""


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_minutes_are_a_positive_number(text: str) -> None:
    assert minutes("4.5") == 4.5
    with pytest.raises(ValueError, match=r"positive|could not convert"):
        minutes(text)
