"""The whole way with nnU-Net itself, and what is refused before anything is trained."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from app.__main__ import main as app
from app.loading import cpu_has_bfloat16
from app.model import LesionFilter, load_model, save_manifest
from tests.nnunet_models import ORACLE_PYTHON, ROOT, crop_scan
from tests.training.tiny import recipe_json, sourced, write_case, write_recipe
from training import nnunet, prepare, train
from training.checkpoint import load_checkpoint
from training.errors import TrainingError
from training.export import export
from training.planning import dataset_json, plans, preprocessing
from training.random_weights import write_random
from training.recipes import load_recipe

DATASET = "Dataset001_Lesions"


def call(main: Any, *arguments: object) -> int:
    return int(main([str(argument) for argument in arguments]))


def test_epochs_can_be_chosen(tmp_path: Path) -> None:
    recipe = load_recipe("dkfz-ensemble")
    assert train.with_epochs(recipe, None) == recipe
    assert [m.settings.epochs for m in train.with_epochs(recipe, 3).members] == [3, 3]


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A complete record, as training.prepare leaves it, and nothing else."""
    recipe = load_recipe(str(write_recipe(tmp_path / "tiny.json")))
    planned = plans(recipe, DATASET)
    record = {
        "complete": True,
        "recipe": "tiny",
        "dataset": DATASET,
        "patients": {"a": "a", "b": "b"},
        "healthy": [],
        "splits": [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}],
        "asked": {"seed": 0, "preprocessing": preprocessing(planned)},
    }
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "prepared.json").write_text(json.dumps(record))
    return tmp_path / "prepared"


def refusal(prepared: Path, recipe: str = "tiny.json", fold: str = "0") -> str:
    root = prepared.parent
    request = train.Request(prepared, root / "out", root / "model", fold)
    with pytest.raises(TrainingError) as caught:
        train.train(load_recipe(recipe if ".json" not in recipe else str(root / recipe)), request)
    return str(caught.value)


def test_what_is_refused_before_training(prepared: Path) -> None:
    assert "folds 0 to 1, or all" in refusal(prepared, fold="2")
    assert "folds 0 to 1, or all" in refusal(prepared, fold="first")
    assert "was prepared for tiny, whose preprocessing is another" in refusal(
        prepared, "dkfz-batch8"
    )
    request = train.Request(
        prepared, prepared.parent / "out", prepared.parent / "model", "all", lesion_filter=True
    )
    with pytest.raises(TrainingError, match="--fold all holds nothing out to choose one on"):
        train.train(load_recipe(str(prepared.parent / "tiny.json")), request)
    (prepared.parent / "model").mkdir()
    assert "exists; remove it or choose another --export" in refusal(prepared)
    record = json.loads((prepared / "prepared.json").read_text())
    (prepared / "prepared.json").write_text(json.dumps(record | {"complete": False}))
    assert "was interrupted" in refusal(prepared)
    (prepared / "prepared.json").unlink()
    assert "run python -m training.prepare" in refusal(prepared)


MEMBER = "nnUNetTrainer__tiny__3d_fullres"


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order, with stand-ins for nnU-Net's trainer and for the validation."""
    steps: list[str] = []

    def run(module: str, planned: Path, configuration: str, fold: str, *_: str, **of: Any) -> None:
        content = json.loads(planned.read_text())
        folder = of["results"] / DATASET / MEMBER
        shutil.rmtree(folder, ignore_errors=True)
        write_random(folder, content, dataset_json(2), configuration)
        training = content["configurations"][configuration]["training"]
        report = {"configuration": configuration, "batch_size": 2, "parameters": 1, "device": "CPU"}
        report |= {"seconds_in_epochs": 1.0} | {k: training[k] for k in ("epochs", "iterations")}
        (folder / f"fold_{fold}" / "training.json").write_text(json.dumps(report))
        steps.append(module)

    def validate(model: Path, raw: Path, cases: list[str], *_: object) -> list[Any]:
        steps.append("validation")
        numbers = dict.fromkeys(("dsc", "nsd", "lesion_f1", "reference_ml", "predicted_ml"), 1.0)
        return [{"case": case, "status": "ok", **numbers} for case in cases]

    def choose(model: Path, *_: object) -> Any:
        steps.append("filter")
        add_filter(model)
        return SimpleNamespace(verdict="Lesion filter: one.", markdown=lambda: "a table\n")

    monkeypatch.setattr(nnunet, "run", run)
    monkeypatch.setattr(train, "validate", validate)
    monkeypatch.setattr(train, "choose", choose)
    return steps


def add_filter(model: Path) -> None:
    rule = LesionFilter(1.0, 0.9, evidence="made up")
    save_manifest(model, dataclasses.replace(load_model(model).config, lesion_filter=rule))


def start(prepared: Path, *options: object) -> int:
    root = prepared.parent
    output, model = root / "out", root / "model"
    arguments = ("--data", prepared, "--output", output, "--export", model, *options)
    return call(train.main, root / "tiny.json", *arguments)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.iterdir()}


def test_again_it_repeats_nothing_and_keeps_what_came_after_it(
    prepared: Path, done: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model, output = prepared.parent / "model", prepared.parent / "out"
    assert start(prepared) == 0
    told = capsys.readouterr().out
    assert told.endswith(f"model: {model}\nnext: python -m training.card {output}\n")
    assert done == ["trainer", "validation"]
    assert start(prepared, "--lesion-filter") == 0
    assert done == ["trainer", "validation", "filter"]
    for name in ("results.md", "curve.png", "README.md"):
        (model / name).write_text("of this model")
    before, summary = snapshot(model), (output / "summary.json").read_bytes()
    assert start(prepared, "--lesion-filter") == 0
    assert start(prepared) == 0
    assert done == ["trainer", "validation", "filter"]
    assert snapshot(model) == before
    assert (output / "summary.json").read_bytes() == summary
    assert "Lesion filter: one." in (output / "summary.md").read_text()


@pytest.mark.parametrize("added", ["results.md", "a lesion filter"])
def test_another_training_removes_nothing_that_was_added(
    added: str, prepared: Path, done: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = prepared.parent / "model"
    assert start(prepared) == 0
    if added == "results.md":
        (model / added).write_text("precious")
    else:
        add_filter(model)
    before = snapshot(model)
    done.clear()
    assert start(prepared, "--epochs", 3) == 1
    assert start(prepared, "--notice", "another") == 1
    assert capsys.readouterr().err.count(f"model: is of another training and has {added}") == 2
    assert done == []
    assert snapshot(model) == before


def test_a_model_of_fewer_epochs_is_replaced(prepared: Path, done: list[str]) -> None:
    model = prepared.parent / "model"
    assert start(prepared) == 0
    before = snapshot(model)
    assert start(prepared, "--epochs", 3) == 0
    assert done == ["trainer", "validation"] * 2
    assert snapshot(model).keys() == before.keys()
    assert snapshot(model) != before


@pytest.mark.parametrize("last", ["export", "validate", "write_whole"])
def test_wherever_it_ends_it_goes_on_from_there(
    last: str, prepared: Path, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, last, killed)
        assert start(prepared) == 130
    assert start(prepared) == 0
    assert done == ["trainer", "validation"]
    load_model(prepared.parent / "model").check_weights()


def sarcomas(real_data: Path, folder: Path) -> Path:
    """Two real tumours, cropped so that nnU-Net takes seconds."""
    found = sorted((real_data / "sts" / "labelsTr").glob("*.nii.gz"))[:2]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for label in found:
        name = label.name.removesuffix(".nii.gz")
        scan = f"{name}_0000.nii.gz"
        size = (64, 64, 24)
        crop_scan(real_data / "sts" / "imagesTr" / scan, folder / "imagesTr" / scan, size)
        crop_scan(label, folder / "labelsTr" / label.name, size)
    return folder


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE_PYTHON.exists(), reason="no nnU-Net: run `make oracle`")
def test_the_whole_way(real_data: Path, tmp_path: Path) -> None:
    """An ensemble as DKFZ's, of two short trainings: prepared, trained, exported, run, scored."""
    data, prepared, output = (tmp_path / name for name in ("data", "prepared", "output"))
    sarcomas(real_data, data)
    content = recipe_json(network="ResidualEncoderUNet", logits_resampling="torch")
    content |= {"members": {"a": {}, "b": sourced({"seed": 8})}}
    recipe = write_recipe(tmp_path / "tiny.json", content)
    model = tmp_path / "weights" / "tiny"
    assert call(prepare.main, recipe, "--data", data, "--output", prepared, "--processes", 1) == 0
    options = ["--data", prepared, "--output", output, "--export", model, "--device", "cpu"]
    options += ["--processes", 1, "--nnunet-validation", "--lesion-filter"]
    assert call(train.main, recipe, *options) == 0

    summary = json.loads((output / "summary.json").read_text())
    assert [m["epochs"] for m in summary["members"]] == [2, 2]
    assert [m["seed"] for m in summary["members"]] == [7, 8]
    expected = "bfloat16" if cpu_has_bfloat16() else "float32"
    assert [m["arithmetic"] for m in summary["members"]] == [expected] * 2
    (case,) = summary["cases"]
    assert summary["patients"] == {case["case"]: case["case"]}
    assert case["status"] == "ok"
    assert summary["validation"]["dsc"] == round(case["dsc"], 4)
    assert (output / "summary.md").read_text().startswith("# tiny\n")
    config = json.loads((model / "model.json").read_text())
    assert summary["lesion_filter"] in (output / "summary.md").read_text()
    _filter_is_what_is_said(summary, config, (output / "lesion_filter.md").read_text())
    assert len(config["members"]) == 2
    assert config["trainer"] == "nnUNetTrainer"

    for member in "ab":
        folder = output / "nnUNet_results" / DATASET / f"nnUNetTrainer__tiny__3d_fullres_{member}"
        alone = tmp_path / f"model_{member}"
        assert export([folder], alone) == []
        mask = tmp_path / f"{member}.nii.gz"
        scan = data / "imagesTr" / f"{case['case']}_0000.nii.gz"
        exact = ["--model", alone, "--device", "cpu", "--exact", "--tta"]  # nnU-Net mirrors, too
        assert call(app, "--input", scan, "--output", mask, *exact) == 0
        ours, theirs = (
            sitk.GetArrayFromImage(sitk.ReadImage(file))
            for file in (mask, folder / "fold_0" / "validation" / f"{case['case']}.nii.gz")
        )
        assert np.array_equal(ours, theirs)
        assert len(np.unique(theirs)) == 2  # else there is nothing to compare


def _filter_is_what_is_said(summary: Any, config: Any, table: str) -> None:
    """Whether there is a filter depends on what few iterations have taught the network."""
    (case,) = summary["cases"]
    without = f"{case['dsc']:.4f}"
    assert without in next(line for line in table.splitlines() if line.startswith("| any volume"))
    if summary["lesion_filter"].startswith("No lesion filter"):
        assert config["lesion_filter"] is None
    else:
        assert f"mean DSC {without} -> " in config["lesion_filter"]["evidence"]
        assert config["lesion_filter"]["evidence"] in summary["lesion_filter"]


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE_PYTHON.exists(), reason="no nnU-Net: run `make oracle`")
def test_killed_and_started_again(tmp_path: Path) -> None:
    data, prepared, output = (tmp_path / name for name in ("data", "prepared", "output"))
    for name in ("a", "b"):
        write_case(data, name)
    recipe = write_recipe(tmp_path / "tiny.json", recipe_json(epochs=4, iterations=4))
    assert call(prepare.main, recipe, "--data", data, "--output", prepared, "--processes", 1) == 0
    _preparation_goes_on(prepared / "nnUNet_preprocessed" / DATASET, recipe, data, prepared)
    options = [recipe, "--data", prepared, "--output", output, "--export", tmp_path / "model"]
    options += ["--device", "cpu", "--processes", 1]

    command = [sys.executable, "-m", "training.train", *map(str, options)]
    killed = subprocess.Popen(command, cwd=ROOT)
    fold = output / "nnUNet_results" / DATASET / "nnUNetTrainer__tiny__3d_fullres" / "fold_0"
    until = time.monotonic() + 120
    while not (fold / "checkpoint_latest.pth").exists():
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    time.sleep(2)  # what it had started ends with it
    assert not (fold / "checkpoint_final.pth").exists()
    before = load_checkpoint(fold / "checkpoint_latest.pth").epoch
    assert before is not None
    assert 0 < before < 4
    log = {f: f.read_bytes() for f in fold.glob("training_log_*.txt")}
    time.sleep(1)
    assert {f: f.read_bytes() for f in fold.glob("training_log_*.txt")} == log

    assert call(train.main, *options) == 0
    assert sorted(p.name for p in fold.parent.glob("fold_*")) == ["fold_0"]
    report = json.loads((fold / "training.json").read_text())
    assert report["epochs"] == len(report["losses"]) == 4
    assert load_checkpoint(fold / "checkpoint_final.pth").epoch == 4
    assert json.loads((output / "summary.json").read_text())["validation"]["cases"] == 1
    before_again = {f: f.stat().st_mtime_ns for f in (tmp_path / "model").iterdir()}
    assert call(train.main, *options) == 0  # once more: nothing left to do
    assert json.loads((fold / "training.json").read_text()) == report
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "model").iterdir()} == before_again
    assert call(train.main, *options, "--epochs", 2) == 1  # it has more than that


def _preparation_goes_on(folder: Path, recipe: Path, data: Path, prepared: Path) -> None:
    """As if it had been killed while it preprocessed the second case."""
    done = folder / "3d_fullres"
    before = {file.name: file.stat().st_mtime_ns for file in done.iterdir()}
    (done / "b.pkl").unlink()
    aside = folder / ".3d_fullres.unfinished"
    aside.mkdir()
    (aside / "b.b2nd").write_bytes(b"half of it")
    assert call(prepare.main, recipe, "--data", data, "--output", prepared, "--processes", 1) == 0
    after = {file.name: file.stat().st_mtime_ns for file in done.iterdir()}
    assert not aside.exists()
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] == before[name]} == {
        "a.b2nd",
        "a_seg.b2nd",
        "a.pkl",
    }
