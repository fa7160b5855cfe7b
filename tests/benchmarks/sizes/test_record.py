import json
from pathlib import Path

import pytest

from benchmarks.sizes.record import Case, Log, Measurement, case
from evaluation.errors import EvaluationError

SETTING = {"machine": "a", "app": "1"}
RUN = Measurement("huang", 8, "app", 0, wall_s=2.0, stages={"network": 1.5})


def test_what_was_measured_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    Log(file, SETTING, resume=False).add(RUN)
    again = Log(file, SETTING, resume=True)
    assert again.measurements == [RUN]
    assert again.has(RUN.key)
    assert not again.has(("huang", 8, "app", 1))
    assert [json.loads(li)["machine"] for li in file.read_text().splitlines()[:1]] == ["a"]


def test_without_resume_it_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    Log(file, SETTING, resume=False).add(RUN)
    assert Log(file, SETTING, resume=False).measurements == []
    assert Log(file, SETTING, resume=True).measurements == []


def test_a_failure_is_tried_again_and_replaced(tmp_path: Path) -> None:
    log = Log(tmp_path / "runs.jsonl", SETTING, resume=True)
    log.add(Measurement(*RUN.key, error="exit code 1"))
    assert not log.has(RUN.key)
    log.add(RUN)
    assert log.measurements == [RUN]


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
    Log(file, SETTING, resume=False).add(RUN)
    before = file.read_text()
    with pytest.raises(EvaluationError, match=message):
        Log(file, setting, resume=True)
    assert file.read_text() == before


@pytest.mark.parametrize("content", ["", "{", '{"machine": "a", "app": "1"}\n{"foreign": 1}\n'])
def test_another_file_is_not_taken_up(tmp_path: Path, content: str) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(content)
    with pytest.raises(EvaluationError, match="not of this version"):
        Log(file, SETTING, resume=True)


def test_medians_are_of_the_runs_that_ended_well() -> None:
    runs = [
        Measurement("huang", 8, "app", i, wall_s=w, peak_rss_mib=100 + w, stages={"network": w / 2})
        for i, w in enumerate([4.0, 1.0, 2.0])
    ]
    runs.append(Measurement("huang", 8, "app", 3, error="exit code 1"))
    found = case(runs, on_gpu=False)
    assert (found.wall_s, found.peak_mib, found.area_mib_s) == (2.0, 102.0, None)
    assert found.stages == {"network": 1.0}
    assert case(runs, on_gpu=True).peak_mib is None
    assert case(runs[3:], on_gpu=False) == Case(error="exit code 1")
    assert case([], on_gpu=False) == Case()
