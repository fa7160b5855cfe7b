"""benchmarks.public_plans: which plans of public repositories become models."""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from app.model import ModelConfig
from benchmarks.public_plans import Outcome, exported, plans_in, segment, table
from tests.app.small_model import CONFIG
from tests.nnunet_models import Json, plans
from tests.training.trained_folder import put

OTHER_NETWORK = "network class neUNet is not supported, only"
# Why others than those do not become models, of the files in FLARE_TEST_DATA.
REFUSED = {
    "38d9d77e8d": "image_reader_writer Tiff3DIO is not supported",
    "62c7994c7c": "preprocessor_name RSNA_Aneurysm_Preprocessor is not supported",
}


def write(file: Path, plans_json: Json) -> Path:
    file.write_text(json.dumps(plans_json))
    return file


def test_plans_without_a_dataset_are_exported(tmp_path: Path) -> None:
    """With as many channels as normalisation schemes; of the configurations the last whole one."""
    two = plans(schemes=("CTNormalization", "ZScoreNormalization"))
    base = two["configurations"]["base"]
    two["configurations"] = {
        "3d_lowres": base,
        "3d_mine": {"inherits_from": "3d_lowres"},
        "3d_cascade_fullres": {"inherits_from": "3d_lowres", "previous_stage": "3d_lowres"},
        "2d": base | {"patch_size": [64, 64]},
        "3d_part": {"patch_size": [8, 8, 8]},
    }
    file = write(tmp_path / "two.json", two | {"image_reader_writer": "NibabelIO"})
    (tmp_path / "work").mkdir()
    found = exported(file, tmp_path / "work")
    assert (found.file, found.configuration, found.reader) == ("two", "3d_mine", "NibabelIO")
    assert found.model is not None
    assert len(found.model.channels) == 2
    segment(found.model, tmp_path / "work")


def test_a_reason_has_no_path_in_it(tmp_path: Path) -> None:
    mine = put(plans(), "configurations/base/preprocessor_name", "Mine")
    (tmp_path / "work").mkdir()
    found = exported(write(tmp_path / "a.json", mine), tmp_path / "work")
    assert found.model is None
    assert found.refused == "preprocessor_name Mine is not supported, only DefaultPreprocessor"


def test_only_plans_in_three_dimensions_count(tmp_path: Path) -> None:
    write(tmp_path / "flat.json", put(plans(), "configurations/base/patch_size", [64, 64]))
    write(tmp_path / "deep.json", plans())
    write(tmp_path / "deep.dataset.json", {"labels": {}})
    assert plans_in(tmp_path) == [tmp_path / "deep.json"]


def test_table() -> None:
    done = Outcome("a", "D1", "3d_fullres", "SimpleITKIO", CONFIG)
    refused = replace(done, file="b", model=None, refused="preprocessor_name X is not")
    text = table([done, done, done, refused, replace(refused, refused=OTHER_NETWORK)])
    assert (
        "Of 5 plans.json with a 3D configuration 1 are for networks that the app has not." in text
    )
    assert "Of the other 4, 3 (75%) were exported" in text
    rows = text.splitlines()[-5:]
    assert rows[0].startswith("| a | D1 | 3d_fullres | SimpleITKIO | PlainConvUNet | 0.0 | exp")
    assert rows[3].endswith(
        "| 3d_fullres | SimpleITKIO |  |  | refused: preprocessor_name X is not |"
    )


@pytest.mark.slow
def test_public_plans(real_data: Path, tmp_path: Path) -> None:
    """Nine of ten whose network the app has become models; the smallest of them segment."""
    found: dict[Path, ModelConfig] = {}
    refused = {}
    for file in plans_in(real_data / "published_plans"):
        with tempfile.TemporaryDirectory() as work:
            outcome = exported(file, Path(work))
        if outcome.model is not None:
            found[file] = outcome.model
        elif not outcome.refused.startswith("network class "):
            refused[file.stem] = outcome.refused
    assert len(found) / (len(found) + len(refused)) > 0.9
    assert refused.keys() == REFUSED.keys()
    assert all(reason.startswith(REFUSED[name]) for name, reason in refused.items())
    for file in sorted(found, key=lambda file: math.prod(found[file].patch_size))[:2]:
        (tmp_path / file.stem).mkdir()
        model = exported(file, tmp_path / file.stem).model
        assert model is not None
        segment(model, tmp_path / file.stem)
