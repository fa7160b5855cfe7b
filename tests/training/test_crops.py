"""Crops drawn anew and boxes without lesions: what is in them, and that the seed decides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from tests.nnunet_models import write_scan
from training import crops
from training.cases import Case, find
from training.checks import Checked, check
from training.crops import Draws, draw, main
from training.errors import TrainingError

SPACING = np.array([4.0, 2.0, 1.0])  # mm; z, y, x
SHAPE = (60, 90, 150)


@pytest.fixture
def lesion() -> NDArray[np.bool_]:
    """Two lesions: together from 24 to 35 along z, 40 to 54 along y, 60 to 99 along x."""
    voxels = np.zeros(SHAPE, bool)
    voxels[24:30, 40:50, 60:70] = True
    voxels[33:36, 52:55, 90:100] = True
    return voxels


def part(voxels: NDArray[np.bool_], box: dict[str, list[int]]) -> NDArray[np.bool_]:
    (z, y, x), (d, h, w) = box["start_zyx"], box["size_zyx"]
    return voxels[z : z + d, y : y + h, x : x + w]


def test_crops_hold_every_lesion_with_margins_between_the_bounds(lesion: NDArray[np.bool_]) -> None:
    draws = Draws(crops=200, boxes=0, margin_mm=(5, 30))
    margins = []
    for box in draw(lesion, SPACING, "case", draws).values():
        assert part(lesion, box).sum() == lesion.sum()
        low = np.array([24, 40, 60]) - box["start_zyx"]
        high = np.add(box["start_zyx"], box["size_zyx"]) - [36, 55, 100]
        margins += [low * SPACING, high * SPACING]
    # to the nearest voxel, and spread over the whole of what is allowed
    assert np.all(np.min(margins, axis=0) >= 5 - SPACING / 2)
    assert np.all(np.max(margins, axis=0) <= 30 + SPACING / 2)
    assert np.ptp(margins, axis=0).min() > 20
    means = np.mean(margins, axis=0)
    assert means == pytest.approx(np.full(3, 17.5), abs=1.5)


def test_a_crop_ends_where_the_scan_does(lesion: NDArray[np.bool_]) -> None:
    for box in draw(lesion, SPACING, "case", Draws(boxes=0, margin_mm=(400, 500))).values():
        assert (box["start_zyx"], box["size_zyx"]) == ([0, 0, 0], list(SHAPE))


def test_boxes_hold_no_lesion(lesion: NDArray[np.bool_]) -> None:
    draws = Draws(crops=0, boxes=100, box_mm=(20, 80))
    drawn = draw(lesion, SPACING, "case", draws)
    assert len(drawn) == 100
    sizes = []
    for box in drawn.values():
        assert not part(lesion, box).any()
        assert part(lesion, box).shape == tuple(box["size_zyx"])  # inside the scan
        sizes.append(box["size_zyx"] * SPACING)
    assert np.min(sizes) >= 18
    assert np.max(sizes) <= 82


def test_where_there_is_no_room_for_a_box_there_is_none() -> None:
    assert draw(np.ones((9, 9, 9), bool), SPACING, "case", Draws(crops=0)) == {}


def test_the_seed_and_the_name_decide(lesion: NDArray[np.bool_]) -> None:
    def drawn(name: str, seed: int) -> list[object]:
        return list(draw(lesion, SPACING, name, Draws(seed=seed)).values())

    assert drawn("a", 1) == drawn("a", 1)
    assert drawn("a", 1) != drawn("a", 2)
    assert drawn("a", 1) != drawn("b", 1)


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def read(file: Path) -> sitk.Image:
    return sitk.ReadImage(file)


@pytest.fixture
def data(tmp_path: Path, lesion: NDArray[np.bool_]) -> Path:
    """One scan whose every voxel is another, with a mask, on an origin of its own."""
    voxels = np.arange(lesion.size, dtype=np.int32).reshape(SHAPE)
    spacing = tuple(SPACING[::-1].tolist())
    for file, array in (
        (tmp_path / "data" / "imagesTr" / "p1_0000.nii.gz", voxels),
        (tmp_path / "data" / "labelsTr" / "p1.nii.gz", lesion.astype(np.uint8)),
    ):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        image.SetOrigin((10, -20, 300))
        file.parent.mkdir(parents=True)
        sitk.WriteImage(image, file)
    return tmp_path / "data"


def test_files_are_parts_of_the_scan_where_it_lies(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    assert call("--data", data, "--output", output, "--crops", 2, "--boxes", 1, "--seed", 3) == 0
    said, following = capsys.readouterr().out.splitlines()
    assert said == "p1: 2 crops, 1 boxes without a lesion"
    assert following == f"next: python -m training.prepare RECIPE --data {output} --output PREPARED"
    record = json.loads((output / "crops.json").read_text())
    assert record["p1"]["asked"]["draws"]["seed"] == 3
    whole, mask = read(data / "imagesTr/p1_0000.nii.gz"), read(data / "labelsTr/p1.nii.gz")
    assert set(record["p1"]["drawn"]) == {"p1_crop0", "p1_crop1", "p1_box0"}
    for name, box in record["p1"]["drawn"].items():
        start, size = box["start_zyx"][::-1], box["size_zyx"][::-1]
        for file, source in (
            (output / "imagesTr" / f"{name}_0000.nii.gz", whole),
            (output / "labelsTr" / f"{name}.nii.gz", mask),
        ):
            found, expected = read(file), sitk.RegionOfInterest(source, size, start)
            voxels = sitk.GetArrayFromImage(found)
            assert np.array_equal(voxels, sitk.GetArrayFromImage(expected))
            assert found.GetPixelID() == source.GetPixelID()
            assert found.GetOrigin() == pytest.approx(expected.GetOrigin(), abs=1e-3)
            assert found.GetSpacing() == pytest.approx(expected.GetSpacing())


def origins(folder: Path) -> dict[str, tuple[str | None, bool]]:
    return {case.name: (case.crop_of, case.healthy) for case in find(folder).cases}


def test_another_folder_adds_and_each_crop_is_of_its_scan(data: Path, tmp_path: Path) -> None:
    """A scan may have a name as a crop has it, and crops may be drawn from crops."""
    healthy, output = tmp_path / "healthy", tmp_path / "output"
    healthy.mkdir()
    write_scan(healthy / "p2_box7_0000.nii.gz", np.zeros((30, 60, 60), np.int16), (2, 2, 2))
    few = ("--crops", 1, "--boxes", 1)
    assert call("--data", data, "--output", output, *few) == 0
    for part in ("imagesTr/p1_0000", "labelsTr/p1"):
        (data / f"{part}.nii.gz").unlink()
    assert call("--data", data, "--healthy", healthy, "--output", output, *few) == 0
    assert origins(output) == {
        "p1_crop0": ("p1", False),
        "p1_box0": ("p1", True),
        "p2_box7_box0": ("p2_box7", True),
    }
    assert call("--data", output, "--output", tmp_path / "again", *few) == 0
    assert origins(tmp_path / "again") == {
        "p1_crop0_crop0": ("p1", False),
        "p1_crop0_box0": ("p1", True),
        "p1_box0_box0": ("p1", True),
        "p2_box7_box0_box0": ("p2_box7", True),
    }


def test_interrupted_it_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("imagesTr/p{}_0000", "labelsTr/p{}"):
        copy = (data / f"{part.format(1)}.nii.gz").read_bytes()
        (data / f"{part.format(2)}.nii.gz").write_bytes(copy)
    output = tmp_path / "output"
    again = ("--data", data, "--output", output)

    def broken_at_p2(case: Case) -> Checked:
        if case.name == "p2":
            raise TrainingError("p2 is broken")
        return check(case)

    with monkeypatch.context() as patched:
        patched.setattr(crops, "check", broken_at_p2)
        assert call(*again) == 1
    first = {f: f.stat().st_mtime_ns for f in output.rglob("p1*")}
    assert call(*again) == 0
    assert {f: f.stat().st_mtime_ns for f in output.rglob("p1*")} == first
    assert len(list(output.rglob("p2*"))) == len(first) == 2 * 8
    assert call(*again, "--seed", 1) == 1
    (data / "labelsTr" / "p1.nii.gz").touch()
    assert call(*again) == 1
    assert capsys.readouterr().err.count("holds crops of p1 already, of another scan or") == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"p1": 3}', '{"p1": {}}'])
def test_a_damaged_record_is_named(content: str, data: Path, tmp_path: Path) -> None:
    (data / "crops.json").write_text(content)
    with pytest.raises(TrainingError, match=r"crops\.json: .*; draw the crops again"):
        find(data)


def test_a_broken_case_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "imagesTr" / "p1_0000.nii.gz").write_bytes(b"no scan")
    assert call("--data", data, "--output", tmp_path / "output") == 1
    assert "p1_0000.nii.gz" in capsys.readouterr().err
