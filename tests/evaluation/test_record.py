import csv
from pathlib import Path

from msgspec.structs import replace

from evaluation.challenges import CaseLimits
from evaluation.record import Record, row, scored
from evaluation.states import State
from evaluation.tables.csv_file import write_csv
from tests.evaluation.challenges import FLARE24
from tests.evaluation.records import ACCURACY, RECORD, VRAM, WITHOUT_GPU


def rows(*records: Record, limits: CaseLimits = FLARE24.limits) -> list[dict[str, object]]:
    return [row(one, limits) for one in records]


def test_rows_have_the_same_columns_whatever_was_measured() -> None:
    of_all, without_gpu, unscored = rows(
        RECORD, WITHOUT_GPU, replace(RECORD, usage=None, accuracy=None)
    )
    assert list(of_all) == list(without_gpu) == list(unscored)
    first = ["case", "status", "dsc", "nsd"]
    assert list(of_all)[:4] == first
    assert of_all["peak_vram_mib"] == 1234.5
    assert of_all["contaminated"] == "another process (PID 7, Xorg, 5 MiB) was on the GPU"
    assert [of_all[name] for name in ("size_x", "size_y", "size_z")] == [512, 512, 55]
    for name in ("peak_vram_mib", "area_mib_s", "flare_auc_gpu_time", "contaminated", "samples"):
        assert without_gpu[name] is None
    assert unscored["runtime_s"] is unscored["dsc"] is None


def test_memory_above_a_limit_is_that_of_the_challenge() -> None:
    above = replace(RECORD, vram=replace(VRAM, area_above_limit_mib_s=7.5))
    (flat,) = rows(above)
    assert flat["area_above_4096_mib_s"] == 7.5
    names = list(flat)
    assert names[names.index("area_mib_s") + 1] == "area_above_4096_mib_s"
    (flat,) = rows(above, limits=CaseLimits(timeout_s=60.0, vram_mib=2048.0))
    assert flat["area_above_2048_mib_s"] is None  # measured above another
    (flat,) = rows(above, limits=CaseLimits(timeout_s=60.0))
    assert not [name for name in flat if "above" in name or "limit" in name]


def test_what_was_not_measured_is_empty_in_the_table_and_never_0(tmp_path: Path) -> None:
    write_csv(tmp_path / "results.csv", rows(WITHOUT_GPU))
    with (tmp_path / "results.csv").open() as file:
        (read,) = csv.DictReader(file)
    assert read["peak_vram_mib"] == read["cpu_s"] == read["flare_max_gpu_mb"] == ""
    assert read["false_positive_ml"] == "0.0"


def test_several_classes_have_columns_of_their_own() -> None:
    classes = {"Liver": (0.9, 0.8), "Lesion": (0.8123, 0.5)}
    (flat,) = rows(replace(RECORD, accuracy=replace(ACCURACY, classes=classes)))
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
    for _ in range(2):  # again, when its reference has changed
        remark = scored(remark, State.OK, "holds floats", ACCURACY)
        assert remark.message == "not asked for: x; holds floats"
