"""Preparation without nnU-Net: what is refused, what is written, what is gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from tests.nnunet_models import Json, write_scan
from tests.training.tiny import SHAPE, SPACING, recipe_json, write_case, write_recipe
from training import crops, nnunet
from training.prepare import main
from training.prepared import cases, read_record

DATASET = "Dataset001_Lesions"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What nnU-Net would have been asked to do."""
    asked: list[tuple[object, ...]] = []

    def run(*arguments: object, **more: object) -> None:
        asked.append(arguments)

    monkeypatch.setattr(nnunet, "run", run)
    return asked


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two patients of two scans each, in nnU-Net's layout."""
    for name in ("p1-a", "p1-b", "p2-a", "p2-b"):
        write_case(tmp_path / "data", name)
    return tmp_path / "data"


@pytest.fixture
def prepare(tmp_path: Path, data: Path, runs: object) -> Callable[..., int]:
    recipe = write_recipe(tmp_path / "tiny.json")

    def call(*options: object, named: Path = recipe, output: str = "prepared") -> int:
        arguments = [named, "--data", data, "--output", tmp_path / output, "--processes", 1]
        return main([str(argument) for argument in (*arguments, *options)])

    return call


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(f): (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.rglob("*") if f.is_file()
    }


def test_what_is_written(
    prepare: Callable[..., int], data: Path, tmp_path: Path, runs: list[tuple[object, ...]]
) -> None:
    before = snapshot(data)
    assert prepare("--patient-pattern", "(p.)-.", "--seed", 5) == 0
    assert snapshot(data) == before
    output = tmp_path / "prepared"
    record = read(output / "prepared.json")
    assert record["complete"]
    assert record["recipe"] == "tiny"
    assert record["asked"]["seed"] == 5
    assert record["patients"] == {"p1-a": "p1", "p1-b": "p1", "p2-a": "p2", "p2-b": "p2"}
    assert record["lesion_ml"]["p1-a"] == pytest.approx(24.576)
    preprocessed = output / "nnUNet_preprocessed" / DATASET
    splits = read(preprocessed / "splits_final.json")
    assert sorted(fold["val"] for fold in splits) == [["p1-a", "p1-b"], ["p2-a", "p2-b"]]
    assert read(preprocessed / "tiny.json")["configurations"]["3d_fullres"]["batch_size"] == 2
    raw = output / "nnUNet_raw" / DATASET
    assert read(raw / "dataset.json")["numTraining"] == 4
    assert (raw / "imagesTr" / "p1-a_0000.nii.gz").samefile(data / "imagesTr" / "p1-a_0000.nii.gz")
    assert (raw / "labelsTr" / "p1-a.nii.gz").samefile(data / "labelsTr" / "p1-a.nii.gz")
    assert (preprocessed / "gt_segmentations" / "p1-a.nii.gz").exists()
    assert runs == [("preprocessor", DATASET, "tiny", 1)]


def test_the_datasets_own_name_is_kept(
    tmp_path: Path, data: Path, prepare: Callable[..., int]
) -> None:
    data.rename(tmp_path / "Dataset042_Mine")
    arguments = [str(tmp_path / "tiny.json"), "--data", str(tmp_path / "Dataset042_Mine")]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "nnUNet_raw" / "Dataset042_Mine").is_dir()


def test_every_broken_case_is_named_and_nothing_written(
    prepare: Callable[..., int],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    runs: list[tuple[object, ...]],
) -> None:
    write_scan(data / "labelsTr" / "p1-a.nii.gz", np.zeros(SHAPE), SPACING, np.uint8)
    write_scan(data / "labelsTr" / "p1-b.nii.gz", np.full(SHAPE, 7), SPACING, np.uint8)
    (data / "imagesTr" / "p2-a_0000.nii.gz").write_bytes(b"")
    (data / "imagesTr" / "p2-b_0000.nii.gz").unlink()
    assert prepare() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("error: ") for line in lines)
    for part in ("background alone", "holds 7", "p2-a_0000", "p2-b.nii.gz: there is no scan"):
        assert sum(part in line for line in lines) == 1, part
    assert not (tmp_path / "prepared").exists()
    assert runs == []


def test_what_has_no_mask_is_left_out_and_said(
    prepare: Callable[..., int], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(7):
        write_case(data, f"u{number}", mask=False)
    assert prepare() == 0
    told = capsys.readouterr().out
    assert "left out, without a mask: u0, u1, u2, u3, u4 and 2 more" in told
    assert "partial masks count as full ones" in told
    assert len(read(tmp_path / "prepared" / "prepared.json")["left_out"]) == 7


@pytest.mark.parametrize("pattern", [[], ["--patient-pattern", "(p.)-."]])
def test_no_fold_holds_crops_of_a_patient_that_is_also_trained_on(
    pattern: list[str], prepare: Callable[..., int], data: Path, tmp_path: Path
) -> None:
    """A pattern is of the scans' names: here two scans are of one patient."""
    drawn = tmp_path / "crops"
    options = ["--data", data, "--output", drawn, "--crops", 2, "--boxes", 1, "--box", 15, 15]
    assert crops.main([str(option) for option in options]) == 0
    assert prepare(*pattern, "--data", drawn) == 0
    output = tmp_path / "prepared"
    record = read_record(output)
    assert len(record["healthy"]) == 4
    (crop,) = cases(output, record, ["p1-b_crop1"])
    assert (crop.crop_of, crop.healthy) == ("p1-b", False)
    splits = read(output / "nnUNet_preprocessed" / DATASET / "splits_final.json")
    length = len("p1" if pattern else "p1-a")
    assert len(splits) == (2 if pattern else 4)
    for fold in splits:
        held_out, trained_on = ({name[:length] for name in fold[key]} for key in ("val", "train"))
        assert len(held_out) == 1
        assert not held_out & trained_on
        assert len(fold["val"]) + len(fold["train"]) == 12


def test_healthy_scans_get_a_mask(prepare: Callable[..., int], data: Path, tmp_path: Path) -> None:
    write_case(data, "h", lesion=False, mask=False)
    (tmp_path / "healthy.txt").write_text("h\n")
    assert prepare("--healthy", tmp_path / "healthy.txt") == 0
    output = tmp_path / "prepared"
    assert read(output / "prepared.json")["healthy"] == ["h"]
    raw = output / "nnUNet_raw" / DATASET
    mask, scan = (
        sitk.ReadImage(raw / part) for part in ("labelsTr/h.nii.gz", "imagesTr/h_0000.nii.gz")
    )
    assert mask.GetPixelIDValue() == sitk.sitkUInt8
    assert not sitk.GetArrayFromImage(mask).any()
    for geometry in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
        assert geometry(mask) == pytest.approx(geometry(scan), abs=1e-6)


def test_masks_of_floats_become_integers(
    prepare: Callable[..., int], data: Path, tmp_path: Path
) -> None:
    file = data / "labelsTr" / "p1-a.nii.gz"
    voxels = sitk.GetArrayFromImage(sitk.ReadImage(file))
    write_scan(file, voxels, SPACING, np.float64)
    assert prepare() == 0
    made = tmp_path / "prepared" / "nnUNet_raw" / DATASET / "labelsTr" / "p1-a.nii.gz"
    assert not made.is_symlink()
    mask = sitk.ReadImage(made)
    assert mask.GetPixelIDValue() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(mask), voxels)


def test_interrupted_and_started_again(
    prepare: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(nnunet, "run", killed)
        assert prepare() == 130
    record = tmp_path / "prepared" / "prepared.json"
    assert not read(record)["complete"]
    assert prepare() == 0
    assert read(record)["complete"]
    assert prepare() == 0  # nothing left to do


CHANGES: dict[str, tuple[Json | None, list[object], str]] = {
    "preprocessing": (recipe_json(mean=0.0), [], "with other preprocessing"),
    "seed": (None, ["--seed", 9], "with other seed"),
    "pattern": (None, ["--patient-pattern", "(p.)-."], "with other patients"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_preparation_is_not_gone_on_with(
    name: str, prepare: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, options, expected = CHANGES[name]
    assert prepare() == 0
    other = write_recipe(tmp_path / "other.json", recipe)
    assert prepare(*options, named=other) == 1
    assert expected in capsys.readouterr().err


def test_another_schedule_uses_the_same_data(prepare: Callable[..., int], tmp_path: Path) -> None:
    assert prepare() == 0
    other = write_recipe(tmp_path / "longer.json", recipe_json(epochs=99))
    assert prepare(named=other) == 0
    assert (tmp_path / "prepared/nnUNet_preprocessed" / DATASET / "longer.json").exists()


def test_changed_scans_are_noticed(
    prepare: Callable[..., int], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare() == 0
    write_case(data, "new")
    assert prepare() == 1
    assert "with other cases" in capsys.readouterr().err


def test_a_strangers_folder_is_left_alone(
    prepare: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "thesis.tex").touch()
    assert prepare() == 1
    assert "is not empty" in capsys.readouterr().err
    (tmp_path / "prepared" / "prepared.json").write_text("{}")
    assert prepare() == 1
    assert "is damaged" in capsys.readouterr().err


def test_without_nnunet_it_says_how_to_get_it(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nnunet, "PYTHON", tmp_path / "none")
    recipe = write_recipe(tmp_path / "tiny.json")
    arguments = [recipe, "--data", data, "--output", tmp_path / "out", "--processes", 1]
    assert main([str(a) for a in arguments]) == 1
    assert "install nnU-Net with `make oracle`" in capsys.readouterr().err
