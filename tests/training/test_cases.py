from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.cases import find
from training.errors import TrainingError

DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "lesion": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


def touch(folder: Path, *names: str) -> Path:
    """Empty files: nothing opens them here."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def test_nnunets_layout(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz", "imagesTs/t_0000.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    found = find(tmp_path)
    (case,) = found.cases
    assert case.name == "a"
    assert case.scan == tmp_path / "imagesTr" / "a_0000.nii.gz"
    assert case.mask == tmp_path / "labelsTr" / "a.nii.gz"
    assert found.problems == ()


@pytest.mark.parametrize(
    ("images", "labels", "unlabelled"),
    [
        ("images", "labels", "images"),
        ("imagesTr2200", "labelsTr2200", "unlabeledTr1800"),
        ("imagesTr", "labelsTr", "unlabelled"),
    ],
)
def test_flares_layout(images: str, labels: str, unlabelled: str, tmp_path: Path) -> None:
    touch(
        tmp_path,
        f"{images}/FLARE_Tr_0001_0000.nii.gz",
        f"{images}/FLARE_Tr_0002.nii.gz",
        f"{labels}/FLARE_Tr_0001.nii.gz",
        f"{labels}/FLARE_Tr_0002.nii.gz",
        f"{unlabelled}/FLARE_Tr_0003_0000.nii.gz",
        f"{labels}/readme.txt",
    )
    found = find(tmp_path)
    assert [case.name for case in found.cases] == ["FLARE_Tr_0001", "FLARE_Tr_0002"]
    assert found.unlabelled == ("FLARE_Tr_0003",)
    assert found.problems == ()


def test_healthy_scans_need_no_mask(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz", "images/b_0000.nii.gz", "images/c.nii.gz")
    touch(tmp_path, "labels/a.nii.gz", "labels/c.nii.gz")
    names = tmp_path / "healthy.txt"
    names.write_text("b\nc_0000.nii.gz\n")
    found = find(tmp_path, names)
    assert [(c.name, c.mask is None, c.healthy) for c in found.cases] == [
        ("a", False, False),
        ("b", True, True),
        ("c", False, True),
    ]


def test_a_folder_of_healthy_scans_is_taken_in(tmp_path: Path) -> None:
    data = touch(tmp_path / "data", "images/a.nii.gz", "labels/a.nii.gz")
    healthy = touch(tmp_path / "other", "h_0000.nii.gz")
    found = find(data, healthy)
    assert [(c.name, c.scan, c.healthy) for c in found.cases] == [
        ("a", data / "images" / "a.nii.gz", False),
        ("h", healthy / "h_0000.nii.gz", True),
    ]


def test_every_broken_case_is_named(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "images/a.nii.gz",
        "images/a_0000.nii.gz",
        "images/b_0000.nii.gz",
        "images/b_0001.nii.gz",
        "images/c.nii",
        "labels/a.nii.gz",
        "labels/b.nii.gz",
        "labels/lonely.nii.gz",
    )
    names = tmp_path / "healthy.txt"
    names.write_text("nobody")
    problems = find(tmp_path, names).problems
    assert len(problems) == 5
    for wrong, file in (
        ("is not .nii.gz", "c.nii"),
        ("is a second channel of b", "b_0001"),
        ("rename or remove one", "a_0000"),
        ("there is no scan nobody", "healthy.txt"),
        ("there is no scan of that name", "lonely"),
    ):
        assert sum(wrong in line and file in line for line in problems) == 1, wrong


def test_a_name_in_two_folders_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii.gz", "imagesTr/a.nii.gz", "labels/a.nii.gz")
    (problem,) = find(tmp_path).problems
    assert "case a is" in problem
    healthy = touch(tmp_path / "healthy", "a.nii.gz")
    assert len(find(tmp_path, healthy).problems) == 2


def test_dataset_json_promises_masks(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz")
    assert find(tmp_path).unlabelled == ("b",)
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET))
    found = find(tmp_path)
    assert found.unlabelled == ()
    (problem,) = found.problems
    assert "b_0000.nii.gz: has no mask, though dataset.json" in problem


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"labels": {"background": 0, "liver": 1, "lesion": 2}}, "has labels"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, "in CT alone"),
        ({"file_ending": ".mha"}, "files .mha"),
        ({"labels": None}, "is not nnU-Net's dataset.json"),
    ],
)
def test_other_datasets_are_refused(change: object, expected: str, tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    assert isinstance(change, dict)
    (tmp_path / "dataset.json").write_text(json.dumps(DATASET | change))
    with pytest.raises(TrainingError, match=expected):
        find(tmp_path)


def test_folders_that_hold_nothing_of_use(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such folder"):
        find(tmp_path / "none")
    touch(tmp_path, "scans/a.nii.gz")
    with pytest.raises(TrainingError, match="holds scans; expected imagesTr and labelsTr"):
        find(tmp_path)
    touch(tmp_path, "images/a.nii.gz", "labels/readme.txt")
    with pytest.raises(TrainingError, match="no scan there has a mask"):
        find(tmp_path)
    with pytest.raises(TrainingError, match="give a list of names or a folder"):
        find(tmp_path, tmp_path / "no.txt")
