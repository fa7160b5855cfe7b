"""training.lesion_filter: what it says of a filter is what the app does with it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from app.__main__ import main as app
from app.image import read_image
from app.model import LesionFilter, Member, Model, load_model, save_manifest
from app.predict import Options, Predictor
from app.preprocess import prepare
from evaluation import challenges
from evaluation.__main__ import main as evaluation
from evaluation.scoring.classes import Scores, score
from tests.app.small_model import CONFIG, NETWORK, with_channels, write_model
from tests.nnunet_models import ROOT, crop_scan, smooth_noise, write_scan
from training.lesion_filter import FILTERS, Judged, judge, main
from volumes.files import sha256

CPU = torch.device("cpu")
RULES = challenges.load("flare24").scoring
SHAPE, SPACING = (24, 60, 56), (2.5, 1.5, 1.5)
TRUE = LesionFilter(1.0, 0.0, "")  # what the cases below call a lesion
SOME = (*FILTERS[::9], LesionFilter(1e6, 0.0, ""))  # the last takes everything out
ILL, HEALTHY = (2, 3), (0, 1)  # seeds whose largest lesion has more, or less, than that


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, and a bias with which they see hundreds of lesions up to 1.3 ml."""
    folder = write_model(tmp_path_factory.mktemp("models") / "tiny")
    (member,) = load_model(folder).config.members
    weights = load_file(folder / member.file)
    weights["decoder.seg_layers.0.bias"][1] -= 1.0
    save_file(weights, folder / member.file)
    changed = Member(member.file, sha256(folder / member.file), member.source)
    save_manifest(folder, replace(CONFIG, members=(changed,)))
    return folder


@pytest.fixture
def model(tiny: Path, tmp_path: Path) -> Path:
    """One's own, which a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "weights" / "tiny"))


def predictor(folder: Path, rule: LesionFilter | None = None) -> Predictor:
    config = replace(load_model(folder).config, lesion_filter=rule)
    return Predictor(Model(folder, config), Options(CPU))


def segmented(folder: Path, scan: Path, rule: LesionFilter | None = None) -> NDArray[np.uint8]:
    return predictor(folder, rule).segment([read_image(scan)]).astype(np.uint8)


@pytest.fixture(scope="module")
def seen(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the model itself sees, without small lesions and not quite where it sees it."""
    folder = tmp_path_factory.mktemp("data") / "data"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for seed in (*ILL, *HEALTHY):
        scan = folder / "imagesTr" / f"case{seed}_0000.nii.gz"
        write_scan(scan, smooth_noise(SHAPE, seed), SPACING)
        if seed in ILL:
            lesions = np.roll(segmented(tiny, scan, TRUE), 1, 2)
            assert lesions.any()
            write_scan(folder / "labelsTr" / f"case{seed}.nii.gz", lesions, SPACING, np.uint8)
    (folder / "healthy.txt").write_text("".join(f"case{seed}\n" for seed in HEALTHY))
    return folder


@pytest.fixture
def data(seen: Path, tmp_path: Path) -> Path:
    """One's own, too; healthy.txt names the healthy ones."""
    return Path(shutil.copytree(seen, tmp_path / "data"))


def run(folder: Path, data: Path, *options: object) -> int:
    return main([str(a) for a in (folder, "--data", data, "--device", "cpu", *options)])


def said_and_done(folder: Path, file: Path, reference: NDArray[np.uint8]) -> list[Scores]:
    """The scores of the app's masks under SOME filters, which are those that were said."""
    scan = read_image(file)
    logits, prepared = predictor(folder).logits_on_grid([scan])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.lesion_filter.FILTERS", SOME)
        said = judge(predictor(folder), logits, prepared, reference, scan.spacing_zyx)
    done = []
    for rule, one in zip(SOME, said, strict=True):
        mask = segmented(folder, file, rule)
        done.append(score(RULES, mask, reference, scan.spacing_zyx))
        assert (done[-1].dsc, done[-1].nsd) == (one.dsc, one.nsd)
    return done


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("spacing", [(3.0, 1.5, 1.5), (2.0, 1.2, 1.3)])
def test_what_is_said_of_a_filter_is_what_the_app_does_with_it(
    stream: bool,
    spacing: tuple[float, float, float],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not stream:
        monkeypatch.setattr("app.preprocess.has_slabs", lambda _: False)
    file = write_scan(tmp_path / "X.nii.gz", smooth_noise(SHAPE, 3), spacing)
    seen = segmented(model, file, LesionFilter(0.05, 0.0, ""))
    scores = said_and_done(model, file, np.roll(seen, 1, 1))
    assert len({one.dsc for one in scores}) > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [("sts/{}/STS_003", (100, 100, 60)), ("ct/GETilt-head", (60, 60, 30))],
)
def test_the_same_on_crops_of_real_scans(
    name: str, size: tuple[int, int, int], real_data: Path, tmp_path: Path
) -> None:
    """The shipped model, a sarcoma, and a head that is healthy."""
    model = Path(shutil.copytree(ROOT / "weights" / "cpu-small", tmp_path / "cpu-small"))
    ill = name.startswith("sts")
    source = name.format("imagesTr") + ("_0000" if ill else "_ct")
    file = crop_scan(real_data / f"{source}.nii.gz", tmp_path / "scan.nii.gz", size)
    reference = np.zeros(read_image(file).voxels.shape, np.uint8)
    if ill:
        mask = real_data / f"{name.format('labelsTr')}.nii.gz"
        reference = read_image(crop_scan(mask, tmp_path / "label.nii.gz", size)).voxels
    scores = said_and_done(model, file, reference)
    assert len({one.dsc for one in scores}) > 1


def test_by_hand(model: Path) -> None:
    """One lesion of 64 voxels and 95 %, one of 8 and 85 %, one of 1 and 99 %; 0.05 ml a voxel."""
    shape = (12, 16, 16)
    logits = torch.full((1, *shape), -5.0)
    corners = {64: (1, 4, 0.95), 8: (7, 2, 0.85), 1: (10, 1, 0.99)}
    boxes = {}
    for voxels, (start, side, probability) in corners.items():
        boxes[voxels] = (slice(start, start + side),) * 3
        logits[0][boxes[voxels]] = float(np.log(probability / (1 - probability)))
    spacing = (2.0, 5.0, 5.0)
    config = replace(load_model(model).config, spacing=spacing)
    scan = prepare([np.ones(shape, np.int16)], spacing, config, False, False)
    without_resampling = Predictor(Model(model, config), Options(CPU))
    reference = np.zeros(shape, np.uint8)
    reference[boxes[64]] = 1
    before = logits.clone()

    def by_thresholds(reference: NDArray[np.uint8]) -> dict[tuple[float, float], Judged]:
        judged = judge(without_resampling, logits, scan, reference, spacing)
        assert torch.equal(logits, before)
        return {
            (rule.min_volume_ml, rule.min_probability): one
            for rule, one in zip(FILTERS, judged, strict=True)
        }

    ill = by_thresholds(reference)
    assert ill[0, 0].dsc == ill[0, 0.8].dsc == round(2 * 64 / (64 + 73), 4)
    assert ill[0.1, 0].dsc == round(2 * 64 / (64 + 72), 4)
    assert ill[0, 0.9].dsc == round(2 * 64 / (64 + 65), 4)
    assert ill[0.5, 0].dsc == ill[0.1, 0.9].dsc == ill[2, 0].dsc == 1
    assert ill[5, 0].dsc == ill[0.1, 0.99].dsc == 0
    assert [ill[t].lesions for t in ((0, 0), (0.1, 0), (0.5, 0), (5, 0))] == [3, 2, 1, 0]
    assert not any(one.healthy or one.false_alarm for one in ill.values())
    healthy = by_thresholds(np.zeros(shape, np.uint8))
    assert all(one.healthy for one in healthy.values())
    assert {t for t, one in healthy.items() if not one.false_alarm} == {
        t for t, one in healthy.items() if one.lesions == 0
    }
    assert (healthy[5, 0].dsc, healthy[0, 0].dsc) == (1, 0)


def scored(model: Path, data: Path, output: Path) -> list[dict[str, str]]:
    """The app's masks of all cases as the harness scores them."""
    labels = output / "labels"
    shutil.copytree(data / "labelsTr", labels)
    for scan in (data / "imagesTr").iterdir():
        label = labels / scan.name.replace("_0000", "")
        if not label.exists():
            image = read_image(scan)
            write_scan(label, np.zeros(image.voxels.shape), image.spacing_zyx, np.uint8)
            copied = sitk.ReadImage(label)
            copied.CopyInformation(sitk.ReadImage(scan))
            sitk.WriteImage(copied, label)
    arguments = ["--input", data / "imagesTr", "--output", output / "masks", "--model", model]
    assert app([str(a) for a in (*arguments, "--device", "cpu")]) == 0
    arguments = ["--predictions", output / "masks", "--labels", labels, "--output", output]
    assert evaluation(["score", *map(str, arguments)]) == 0
    with (output / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def mean(rows: list[dict[str, str]], column: str) -> float:
    return round(statistics.fmean(float(row[column]) for row in rows), 4)


def agrees(evidence: str, before: list[dict[str, str]], after: list[dict[str, str]]) -> None:
    """The evidence's numbers are those that app and harness give."""
    for name, column in (("mean DSC", "dsc"), ("NSD", "nsd")):
        pair = re.search(rf"{name} ([\d.]+) -> ([\d.]+)", evidence)
        assert pair is not None
        assert [float(n) for n in pair.groups()] == [mean(before, column), mean(after, column)]
    alarms = [
        sum(float(r["predicted_ml"]) > 0 == float(r["reference_ml"]) for r in rows)
        for rows in (before, after)
    ]
    assert f"healthy cases with false positives {alarms[0]} -> {alarms[1]}," in evidence


@pytest.mark.slow
def test_the_effect_that_is_written_down_is_the_apps(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scored(model, data, tmp_path / "before")
    weights = {f.name: f.read_bytes() for f in model.glob("*.safetensors")}
    capsys.readouterr()
    assert run(model, data, "--healthy", data / "healthy.txt") == 0
    printed = capsys.readouterr().out
    chosen = load_model(model).config.lesion_filter
    assert chosen is not None
    assert (chosen.min_volume_ml, chosen.min_probability) == (1.0, 0.0)
    assert chosen.evidence.startswith("4 cases, 2 of them healthy (data): mean DSC ")
    assert "healthy cases with false positives 2 -> 0," in chosen.evidence
    assert chosen.evidence in printed
    assert printed.endswith(f"{model}/model.json: has it now\n")
    assert {f.name: f.read_bytes() for f in model.glob("*.safetensors")} == weights
    assert sorted(f.name for f in model.iterdir()) == ["member_0.safetensors", "model.json"]
    agrees(chosen.evidence, before, scored(model, data, tmp_path / "after"))


def test_nothing_is_written_where_nothing_helps(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that the model sees is there, and everything is ill."""
    for scan in (data / "imagesTr").iterdir():
        label = data / "labelsTr" / scan.name.replace("_0000", "")
        write_scan(label, segmented(model, scan), SPACING, np.uint8)
    before = (model / "model.json").read_bytes()
    assert run(model, data) == 0
    printed = capsys.readouterr().out
    assert "| any volume | 1.0000 |" in printed
    assert "No lesion filter raises the mean DSC of 4 cases, 0 of them healthy (data)." in printed
    assert printed.endswith(f"{model}/model.json: not changed\n")
    assert (model / "model.json").read_bytes() == before


def prepared(data: Path) -> Path:
    """The same cases as training.prepare leaves them, two in each of two folds."""
    root = data.parent / "prepared"
    raw = root / "nnUNet_raw" / "Dataset001_Lesions"
    shutil.copytree(data, raw)
    for seed in HEALTHY:
        empty = np.zeros(SHAPE, np.uint8)
        write_scan(raw / "labelsTr" / f"case{seed}.nii.gz", empty, SPACING, np.uint8)
    record = {
        "complete": True,
        "dataset": raw.name,
        "healthy": [f"case{seed}" for seed in HEALTHY],
        "splits": [
            {"train": ["case1", "case3"], "val": ["case0", "case2"]},
            {"train": ["case0", "case2"], "val": ["case1", "case3"]},
        ],
    }
    (root / "prepared.json").write_text(json.dumps(record))
    return root


def test_of_prepared_data_the_fold_that_is_held_out(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, prepared(data), "--fold", 1) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^case\d", printed, re.MULTILINE) == ["case1", "case3"]
    chosen = load_model(model).config.lesion_filter
    assert chosen is not None
    assert chosen.evidence.startswith("2 cases, 1 of them healthy (fold 1 of prepared): mean DSC ")


def _filtered(model: Path, data: Path) -> None:
    save_manifest(model, replace(load_model(model).config, lesion_filter=TRUE))


def _three_classes(model: Path, data: Path) -> None:
    network = replace(NETWORK, heads=3)
    labels = ("background", "a", "b")
    save_manifest(model, replace(CONFIG, labels=labels, network=network))


def _two_channels(model: Path, data: Path) -> None:
    save_manifest(model, with_channels(2))


def _all_healthy(model: Path, data: Path) -> None:
    for file in (data / "labelsTr").iterdir():
        file.unlink()
    names = "".join(f"case{seed}\n" for seed in (*ILL, *HEALTHY))
    (data / "healthy.txt").write_text(names)


def _another_grid(model: Path, data: Path) -> None:
    write_scan(data / "labelsTr" / "case2.nii.gz", np.ones((2, 9, 9)), SPACING, np.uint8)


def _damaged_weights(model: Path, data: Path) -> None:
    (model / "member_0.safetensors").write_bytes(b"")


def _no_model(model: Path, data: Path) -> None:
    shutil.rmtree(model)


def _mask_without_scan(model: Path, data: Path) -> None:
    shutil.copy(data / "labelsTr" / "case2.nii.gz", data / "labelsTr" / "other.nii.gz")


def _ensemble(model: Path, data: Path) -> None:
    save_manifest(model, replace(CONFIG, ensemble=("ensemble_1",)))
    (model / "ensemble_1").mkdir()
    save_manifest(model / "ensemble_1", CONFIG)


SPOILED: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "filtered": (_filtered, "model.json: has a lesion filter already; set lesion_filter to null"),
    "three classes": (_three_classes, "model.json: has labels background, a, b and channels CT"),
    "two channels": (
        _two_channels,
        "and channels channel 0, channel 1; a filter is for",
    ),
    "an ensemble": (_ensemble, "model.json: has more than one model; a filter is for one alone"),
    "all healthy": (_all_healthy, "--data: has no case with a lesion"),
    "another grid": (_another_grid, "case2.nii.gz: is not on its scan's grid: its size is"),
    "damaged weights": (_damaged_weights, "member_0.safetensors: SHA-256 differs"),
    "no model": (_no_model, "no model.json here"),
    "mask without scan": (_mask_without_scan, "other.nii.gz: there is no scan of that name"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_bad_input_is_one_line(
    name: str, model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = SPOILED[name]
    spoil(model, data)
    assert run(model, data, "--healthy", data / "healthy.txt") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert expected in printed.err


def test_options_that_do_not_go_together(
    model: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, data, "--fold", 0) == 1
    assert "is not of training.prepare; leave it out" in capsys.readouterr().err
    folder = prepared(data)
    assert run(model, folder, "--healthy", data / "healthy.txt") == 1
    assert "is prepared and knows; leave it out" in capsys.readouterr().err
    assert run(model, folder, "--fold", "all") == 1
    assert "--fold all: holds nothing out to choose on" in capsys.readouterr().err
    assert run(model, folder, "--fold", 2) == 1
    assert "has folds 0 to 1, or all" in capsys.readouterr().err
