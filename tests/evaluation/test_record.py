import csv
from dataclasses import replace
from pathlib import Path

from evaluation.record import row, scored
from evaluation.states import State
from evaluation.tables.csv_file import write_csv
from tests.evaluation.records import ACCURACY, RECORD, WITHOUT_GPU


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
