import csv
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.errors import EvaluationError
from evaluation.record import Record, row, scored
from evaluation.states import State
from evaluation.store import Store
from evaluation.tables.csv_file import write_csv
from tests.evaluation.records import ACCURACY, RECORD, WITHOUT_GPU


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


@pytest.mark.parametrize("content", ["", "{", "{}", '{"case": "case_1"}', "[]"])
def test_a_damaged_record_is_named_with_its_remedy(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    store.save(RECORD)
    store.path("case_1").write_text(content)
    with pytest.raises(EvaluationError, match=r"case_1\.json: not a record .* remove it"):
        store.load("case_1")


def test_a_record_of_another_version_is_not_taken_for_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(RECORD)
    content = json.loads(store.path("case_1").read_text())
    content["usage"]["energy_j"] = 3
    store.path("case_1").write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match="energy_j"):
        store.load("case_1")


def test_rows_have_the_same_columns_whatever_was_measured() -> None:
    rows = [row(RECORD), row(WITHOUT_GPU), row(replace(RECORD, usage=None, accuracy=None))]
    assert len({tuple(one) for one in rows}) == 1
    first = ["case", "status", "dsc", "nsd"]
    assert list(rows[0])[:4] == first
    assert rows[0]["peak_vram_mib"] == 1234.5
    assert rows[0]["contaminated"] == "another process (PID 7, Xorg, 5 MiB) was on the GPU"
    assert [rows[0][name] for name in ("size_x", "size_y", "size_z")] == [512, 512, 55]
    for name in ("peak_vram_mib", "area_mib_s", "flare_auc_gpu_time", "contaminated", "samples"):
        assert rows[1][name] is None
    assert rows[2]["runtime_s"] is rows[2]["dsc"] is None


def test_what_was_not_measured_is_empty_in_the_table_and_never_0(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", [row(WITHOUT_GPU)])
    with (tmp_path / "results.csv").open() as file:
        (read,) = csv.DictReader(file)
    assert read["peak_vram_mib"] == read["cpu_s"] == read["flare_max_gpu_mb"] == ""
    assert read["false_positive_ml"] == "0.0"


def test_several_classes_have_columns_of_their_own() -> None:
    classes = {"Liver": (0.9, 0.8), "Lesion": (0.8123, 0.5)}
    flat = row(replace(RECORD, accuracy=replace(ACCURACY, classes=classes)))
    assert (flat["dsc_Liver"], flat["nsd_Liver"]) == (0.9, 0.8)
    assert flat["dsc"] == flat["dsc_Lesion"] == 0.8123


def test_a_score_turns_only_a_good_run_into_a_bad_one() -> None:
    measured = replace(RECORD, accuracy=None)
    bad = scored(measured, State.BAD_OUTPUT, "holds labels", ACCURACY)
    assert (bad.state, bad.message, bad.accuracy) == (State.BAD_OUTPUT, "holds labels", ACCURACY)
    late = replace(measured, state=State.TIMEOUT, message="stopped")
    assert scored(late, State.TIMEOUT, "stopped", ACCURACY).message == "stopped"
    remark = replace(measured, message="not asked for: x")
    assert scored(remark, State.OK, "", ACCURACY).message == "not asked for: x"


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
