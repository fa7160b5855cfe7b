"""Models of several configurations: what is read, refused, run and said of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.image import read_image
from app.listener import Listener, Tally
from app.model import MANIFEST, ModelError, load_model
from app.predict import Options, Predictor
from tests.app.conftest import Run, mask, scan
from tests.app.small_model import write_model

LOW: dict[str, Any] = {
    "name": "both/ensemble_1",
    "configuration": "3d_lowres",
    "spacing": (6.0, 3.0, 3.0),
    "patch_size": (4, 8, 8),
}


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """Two configurations, the second of which has two members."""
    folder = write_model(tmp_path / "both", name="both", ensemble=("ensemble_1",))
    write_model(folder / "ensemble_1", seed=7, members=2, **LOW)
    return folder


def change(manifest: Path, **fields: Any) -> None:
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | fields))


def test_the_streamed_mean_of_probabilities(both: Path, tmp_path: Path, run: Run) -> None:
    source = scan(tmp_path / "scans" / "X.nii.gz")
    found = {}
    for name, model in (("both", both), ("low", both / "ensemble_1"), ("full", both)):
        if name == "full":
            change(both / MANIFEST, ensemble=[])
        code, out, errors = run(model, source, tmp_path / f"{name}.nii.gz", "--probabilities")
        assert (code, errors) == (0, [])
        if name == "both":
            assert out[0].startswith("model both: 3d_fullres and 3d_lowres, 3 member(s), ")
        with np.load(tmp_path / f"{name}.npz") as file:
            found[name] = file["probabilities"].astype(np.float32)
    right = (found["low"] + found["full"]) / 2
    assert np.abs(found["both"] - right).max() < 2**-10
    clear = np.abs(right[1] - 0.5) > 2**-10
    labels = mask(tmp_path / "both.nii.gz")
    assert np.array_equal(labels[clear], (right[1] > 0.5)[clear])
    assert np.count_nonzero(labels != mask(tmp_path / "full.nii.gz")) > 50


def test_windows_of_all_are_one_count(both: Path, tmp_path: Path) -> None:
    image = read_image(scan(tmp_path / "X.nii.gz"))
    told: list[tuple[int, int]] = []
    listener = Listener(lambda done, of: told.append((done, of)), print, print)
    for exact in (False, True):
        told.clear()
        Predictor(load_model(both), Options(torch.device("cpu"), exact)).segment([image], listener)
        done, of = zip(*told, strict=True)
        assert len(set(of)) == 1
        assert list(done) == list(range(1, of[0] + 1))


def test_a_tally_adds_up() -> None:
    told: list[tuple[int, int]] = []
    tally = Tally([2, 3], lambda done, of: told.append((done, of)))
    first, second = tally.part(0), tally.part(1)
    first(1, 2), second(2, 3), first(2, 2), second(3, 3)
    assert told == [(1, 5), (3, 5), (4, 5), (5, 5)]


def test_weights_of_all_are_checked(both: Path) -> None:
    load_model(both).check_weights()
    (both / "ensemble_1" / "member_1.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"ensemble_1/member_1\.safetensors: SHA-256 differs"):
        load_model(both).check_weights()


def nested(folder: Path) -> None:
    """A model in it becomes an ensemble."""
    write_model(folder / "more")
    change(folder / MANIFEST, ensemble=["more"])


LARGEST = {"keep_largest": [[1]], "source": "postprocessing.pkl"}
FILTER = {"min_volume_ml": 1.0, "min_probability": 0.5, "evidence": ""}
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder elsewhere": (
        lambda folder: change(folder / MANIFEST, ensemble=["../both"]),
        "each once, in the model's own folder",
    ),
    "one twice": (
        lambda folder: change(folder / MANIFEST, ensemble=["ensemble_1"] * 2),
        "each once, in the model's own folder",
    ),
    "one that is missing": (
        lambda folder: change(folder / MANIFEST, ensemble=["ensemble_2"]),
        "ensemble_2: no model.json here",
    ),
    "other labels": (
        lambda folder: change(folder / "ensemble_1" / MANIFEST, labels=["background", "tumour"]),
        "has ensemble_1 with labels ('background', 'tumour'), not ('background', 'lesion')",
    ),
    "another reader": (
        lambda folder: change(folder / "ensemble_1" / MANIFEST, reader="NibabelIO"),
        "has ensemble_1 with reader 'NibabelIO', not 'SimpleITKIO'",
    ),
    "an ensemble": (
        lambda folder: nested(folder / "ensemble_1"),
        "has ensemble_1, an ensemble itself",
    ),
    "postprocessing": (
        lambda folder: change(folder / "ensemble_1" / MANIFEST, postprocessing=LARGEST),
        "has ensemble_1 with postprocessing",
    ),
    "a lesion filter": (
        lambda folder: change(folder / "ensemble_1" / MANIFEST, lesion_filter=FILTER),
        "has a lesion filter, which is for a model alone",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_together_is_said(name: str, both: Path) -> None:
    spoil, expected = REFUSED[name]

    spoil(both)
    with pytest.raises(ModelError) as refused:
        load_model(both)
    assert expected in str(refused.value)
    assert "; " in str(refused.value)
    assert len(str(refused.value).replace(str(both.parent), "")) < 300


def test_a_time_budget_is_for_one_configuration(both: Path, tmp_path: Path, run: Run) -> None:
    source = scan(tmp_path / "X.nii.gz")
    code, _, errors = run(both, source, tmp_path / "Y.nii.gz", "--time-budget", 60)
    assert code == 1
    assert errors == [
        "error: model both: --time-budget is for a model of one configuration, and this one has "
        "2; leave it out, or choose a --step-size"
    ]
