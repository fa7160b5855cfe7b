"""`python -m evaluation score`: masks that are there already against their references."""

from __future__ import annotations

import csv
import gzip
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from surface_distance import metrics as deepmind  # type: ignore[import-untyped]

from evaluation.__main__ import main
from tests import engine
from tests.evaluation.tables.test_tables import cells
from tests.submissions import BEHAVIOURS, HEEDING, SHAPE, lesion, save

pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")

Labels = NDArray[Any]
SCORES = [
    *("dsc", "nsd", "reference_ml", "predicted_ml", "lesion_count", "lesion_f1"),
    *("lesion_sensitivity", "lesion_precision", "false_positive_ml", "false_negative_ml"),
]
SIZE = ["size_x", "size_y", "size_z"]
ORGANS = [
    *("Liver", "RK", "Spleen", "Pancreas", "Aorta", "IVC", "RAG", "LAG"),
    *("Gallbladder", "Esophagus", "Stomach", "Duodenum", "LK", "Lesion"),
]
VOXEL_ML = 0.8 * 0.8 * 2.5 / 1000


class Folders:
    """Predictions, labels, and where the scores go."""

    def __init__(self, folder: Path) -> None:
        self.predictions, self.labels = folder / "predictions", folder / "labels"
        self.output = folder / "scores"
        self.predictions.mkdir()

    def add(self, name: str, predicted: Labels | None, expected: Labels | None) -> None:
        if predicted is not None:
            save(self.predictions / f"{name}.nii.gz", predicted)
        if expected is not None:
            save(self.labels / f"{name}.nii.gz", expected)

    def command(self, *options: str) -> list[str]:
        return [
            *("score", "--predictions", str(self.predictions), "--labels", str(self.labels)),
            *("--output", str(self.output), *options),
        ]

    def rows(self) -> list[dict[str, str]]:
        with (self.output / "scores.csv").open() as file:
            return list(csv.DictReader(file))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def test_every_case_counts_whatever_its_mask_is(
    folders: Folders, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy = np.zeros(SHAPE, np.uint8)
    folders.add("good", lesion(), lesion())
    folders.add("missing", None, lesion())
    folders.add("extra", lesion(), None)
    folders.add("healthy", healthy, healthy)
    folders.add("healthy_alarm", lesion(), healthy)
    folders.add("healthy_bad", lesion() * 9, healthy)  # no mask, so not a false alarm
    bad = [name for name, one in BEHAVIOURS.items() if one.state == "bad_output" and one.make]
    for name in bad:
        folders.add(f"bad_{name}", None, lesion())
        make = BEHAVIOURS[name].make
        assert make is not None
        make(folders.predictions / f"bad_{name}.nii.gz")
    folders.add("bad_folder", None, lesion())
    (folders.predictions / "bad_folder.nii.gz").mkdir()
    assert main(folders.command()) == 1
    found = {row["case"]: row for row in folders.rows()}
    assert list(found) == sorted([*found])
    assert "extra" not in found

    for name in ("good", "healthy"):
        row = found[name]
        assert (row["status"], row["dsc"], row["nsd"], row["message"]) == ("ok", "1.0", "1.0", "")
    assert (found["good"]["lesion_count"], found["healthy"]["lesion_count"]) == ("2", "0")
    assert found["healthy"]["lesion_sensitivity"] == found["healthy"]["lesion_f1"] == ""
    assert float(found["good"]["reference_ml"]) == pytest.approx(76 * VOXEL_ML)
    assert [found["good"][name] for name in SIZE] == ["24", "20", "10"]
    alarm = found["healthy_alarm"]
    assert (alarm["status"], alarm["dsc"], alarm["lesion_f1"]) == ("ok", "0.0", "0.0")
    assert float(alarm["false_positive_ml"]) == pytest.approx(76 * VOXEL_ML)
    assert (found["missing"]["status"], found["missing"]["message"]) == ("no_output", "no mask")
    for name in ("missing", "healthy_bad", *(f"bad_{one}" for one in [*bad, "folder"])):
        assert [found[name][score] for score in ("dsc", "nsd", "lesion_f1")] == ["0.0"] * 3
        assert found[name]["predicted_ml"] == found[name]["false_positive_ml"] == "", "not known"
    for name in bad:
        row = found[f"bad_{name}"]
        assert row["status"] == "bad_output"
        assert BEHAVIOURS[name].says in row["message"]
    assert "not a regular file" in found["bad_folder"]["message"]

    said = capsys.readouterr().out
    extra = folders.predictions / "extra.nii.gz"
    assert f"notice   {extra}: has no label, not scored\n" in said
    assert said.count("notice") == 1
    assert "missing              no_output  DSC 0.000 NSD 0.000  no mask\n" in said
    tables = (folders.output / "scores.md").read_text()
    assert tables in said
    assert cells(tables, "False-positive rate of healthy cases") == ["0.667 (3 cases, 1 failed)"]
    assert cells(tables, "All") == [str(len(found))]
    assert cells(tables, "Failed: no_output") == ["1"]
    assert cells(tables, "Failed: bad_output") == [str(len(bad) + 2)]
    mean = 100 * 2 / len(found)
    assert cells(tables, "DSC (%)")[0].startswith(f"{mean:.2f} ± ")
    assert "Running time" not in tables  # nothing was run


def test_sound_masks_are_a_success_even_with_some_to_spare(folders: Folders) -> None:
    folders.add("a", lesion() * 0, lesion())  # as wrong as a mask can be
    folders.add("b", lesion(), None)
    assert main(folders.command()) == 0
    (row,) = folders.rows()
    assert (row["status"], row["dsc"], row["false_negative_ml"]) == (
        "ok",
        "0.0",
        row["reference_ml"],
    )


def test_the_table_has_these_columns(folders: Folders) -> None:
    folders.add("a", None, lesion())
    folders.add("b", lesion(), lesion())
    main(folders.command())
    for row in folders.rows():
        assert list(row) == ["case", "status", *SCORES, *SIZE, "message"]
    main(folders.command("--challenge", "flare23"))
    classes = [f"{score}_{organ}" for organ in ORGANS for score in ("dsc", "nsd")]
    for row in folders.rows():
        assert list(row) == ["case", "status", *SCORES, *classes, *SIZE, "message"]


def test_each_class_is_scored_and_the_lesion_ranks(folders: Folders) -> None:
    expected, predicted = np.zeros((2, *SHAPE), np.uint8)
    expected[:4], expected[5:9, 5:15, 2:8], expected[12:20, 5:15, 2:8] = 1, 11, 14
    predicted[:4], predicted[12:20, 5:10, 2:8], predicted[22:] = 1, 14, 2
    folders.add("a", predicted, expected)
    folders.add("b", predicted * 2, expected)
    assert main(folders.command("--challenge", "flare23")) == 1
    a, b = folders.rows()
    assert (a["dsc_Liver"], a["nsd_Liver"]) == ("1.0", "1.0")
    assert (a["dsc_Stomach"], a["dsc_RK"]) == ("0.0", "0.0")  # missed; made up
    assert (a["dsc_Spleen"], a["nsd_Spleen"]) == ("1.0", "1.0")  # in neither
    assert a["dsc"] == a["dsc_Lesion"] == str(round(2 * 240 / (240 + 480), 4))
    assert a["nsd"] == a["nsd_Lesion"] != "0.0"
    assert (a["lesion_count"], a["lesion_f1"]) == ("1", "1.0")
    assert float(a["predicted_ml"]) == pytest.approx(240 * VOXEL_ML)  # of lesion only
    assert b["message"] == "b.nii.gz: holds labels from 0 to 28; allowed are 0 to 14"
    assert {b[f"dsc_{organ}"] for organ in ORGANS} == {"0.0"}


def organisers(prediction: Path, reference: Path) -> tuple[float, float]:
    """DSC and NSD as T1_FLARE24_DSC_NSD_Eval.py has them, for masks of 0 and 1."""
    truth, guess = map(nibabel.Nifti1Image.from_filename, (reference, prediction))
    gt, seg = (np.asarray(image.dataobj).astype(np.uint8) for image in (truth, guess))
    if np.sum(gt) == 0 or np.sum(seg) == 0:
        both = float(np.sum(gt) == np.sum(seg))
        return both, both
    dsc = 2 * np.sum(gt * seg, dtype=float) / (np.sum(gt, dtype=float) + np.sum(seg, dtype=float))
    if dsc < 0.2:
        return round(dsc, 4), 0.0
    distances = deepmind.compute_surface_distances(gt == 1, seg == 1, truth.header.get_zooms())
    nsd = deepmind.compute_surface_dice_at_tolerance(distances, 2.0)
    return round(dsc, 4), round(nsd, 4)


def test_scores_are_those_of_the_organisers(folders: Folders) -> None:
    random = np.random.default_rng(0)
    for number in range(8):
        truth = gaussian_filter(random.standard_normal(SHAPE), 2)
        guess = truth + gaussian_filter(random.standard_normal(SHAPE), 2) * number / 4
        level = np.quantile(truth, 0.9)
        folders.add(str(number), (guess > level).astype("u1"), (truth > level).astype("u1"))
    assert main(folders.command()) == 0
    found = folders.rows()
    assert len(found) == 8
    for row in found:
        name = f"{row['case']}.nii.gz"
        expected = organisers(folders.predictions / name, folders.labels / name)
        assert (float(row["dsc"]), float(row["nsd"])) == expected
    assert len({row["nsd"] for row in found}) > 5


def process(folders: Folders, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*HEEDING, sys.executable, "-m", "evaluation", *folders.command()],
        cwd=engine.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def spoil_spacing(path: Path) -> None:
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[80:84] = struct.pack("<f", float("nan"))  # pixdim[1]
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("values", "holds labels from 0 to 3; allowed are 0 to 1"),
        ("damaged", "truncated"),
        ("spacing", "its voxels cannot measure (nan, "),
    ],
)
def test_a_label_that_cannot_be_used_is_one_line(folders: Folders, kind: str, says: str) -> None:
    for name in "ab":
        folders.add(name, lesion(), lesion())
    label = folders.labels / "b.nii.gz"
    if kind == "values":
        save(label, lesion() * 3)
    elif kind == "damaged":
        label.write_bytes(label.read_bytes()[:-60])
    else:
        spoil_spacing(label)
    done = process(folders)
    _, said = done.communicate(timeout=120)
    assert done.returncode == 1
    assert said.startswith(f"error: {label}: ")
    assert says in said
    assert said.count("\n") == 1
    assert not (folders.output / "scores.csv").exists()


def children(pid: int) -> list[str]:
    """Whichever thread has started them."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [child for task in tasks for child in task.read_text().split()]


def test_ctrl_c_ends_it_without_a_traceback_of_any_worker(folders: Folders) -> None:
    """The terminal sends it to every process: here while workers are still importing."""
    for number in range(8):
        folders.add(str(number), lesion(), lesion())
    scoring = process(folders, start_new_session=True)
    for _ in range(1000):
        if len(children(scoring.pid)) >= 2:
            break
        time.sleep(0.01)
    time.sleep(0.4)
    os.killpg(scoring.pid, signal.SIGINT)
    _, said = scoring.communicate(timeout=120)
    assert scoring.returncode == 130
    assert said.count("\n") == 1
    assert said.startswith("interrupted")
