import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from evaluation.errors import EvaluationError
from evaluation.record import Record
from evaluation.states import State
from evaluation.store import Store
from tests.evaluation.records import RECORD, WITHOUT_GPU

STORED = Path(__file__).with_name("record.json")


@pytest.mark.parametrize(
    "one",
    [
        RECORD,
        WITHOUT_GPU,
        replace(RECORD, accuracy=None),
        replace(RECORD, state=State.INFRA_ERROR, usage=None, vram=None, accuracy=None),
    ],
)
def test_a_record_comes_back_as_it_was_saved(tmp_path: Path, one: Record) -> None:
    store = Store(tmp_path)
    store.save(one)
    assert store.load("case_1") == one
    assert store.load("case_2") is None


def test_a_record_of_the_first_version_is_read(tmp_path: Path) -> None:
    """STORED was written when a field's name had the limit of GPU memory in it."""
    path = Store(tmp_path).path("case_1")
    path.parent.mkdir()
    shutil.copyfile(STORED, path)
    assert Store(tmp_path).load("case_1") == RECORD


def test_a_failed_case_of_an_earlier_version_has_no_false_positives(tmp_path: Path) -> None:
    """They were written as if it had handed in an empty mask, which a healthy case deserves."""
    path = Store(tmp_path).path("case_1")
    path.parent.mkdir()
    content = json.loads(STORED.read_text())
    content["state"] = "timeout"
    content["accuracy"] |= {"predicted_ml": 0.0, "false_positive_ml": 0.0, "lesion_f1": None}
    path.write_text(json.dumps(content))
    one = Store(tmp_path).load("case_1")
    assert one is not None
    assert one.accuracy is not None
    assert one.accuracy.predicted_ml is one.accuracy.false_positive_ml is None
    assert one.accuracy.lesion_f1 == 0.0


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda stored: "", ""),
        (lambda stored: stored[:-3], ""),
        (lambda stored: "[]", "object"),
        (lambda stored: '{"case": "case_1"}', "state"),
        (lambda stored: stored.replace('"ok"', '"well"'), r"well.*\$\.state"),
        (lambda stored: stored.replace("12.0", '"12"'), r"\$\.usage\.runtime_s"),
        (lambda stored: stored.replace('"cpu_s": null,', ""), r"cpu_s.*\$\.usage"),
        (
            lambda stored: stored.replace('"cpu_s"', '"energy_j": 3, "cpu_s"'),
            r"energy_j.*\$\.usage",
        ),
        (lambda stored: stored.replace("512,", "", 1), r"size_xyz"),
    ],
)
def test_a_damaged_record_is_named_with_finding_and_remedy(
    tmp_path: Path, change: Callable[[str], str], finding: str
) -> None:
    path = Store(tmp_path).path("case_1")
    path.parent.mkdir()
    path.write_text(change(STORED.read_text()))
    what = rf"case_1\.json: not a record .*{finding}.*; remove it to run the case again"
    with pytest.raises(EvaluationError, match=what):
        Store(tmp_path).load("case_1")


def _hold(folder: Path, held: "multiprocessing.synchronize.Event") -> None:
    with Store(folder).locked():
        held.set()
        held.wait(60)
        multiprocessing.Event().wait(60)


def test_two_harnesses_cannot_share_an_output(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(EvaluationError, match="another evaluation"), Store(tmp_path).locked():
            pass
    finally:
        other.kill()
        other.join()
    with Store(tmp_path).locked():  # the lock of a dead harness is gone
        pass
