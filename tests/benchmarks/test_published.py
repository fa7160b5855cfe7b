"""The published networks with random weights: loaded alike by the app and by nnU-Net."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from app.__main__ import main as app
from app.model import load_model
from benchmarks.published import Published, make_weights
from tests.nnunet_models import ORACLE_PYTHON, run_oracle, smooth_noise, write_scan
from tests.training.tiny import recipe_json, write_recipe


def tiny(folder: Path, **settings: object) -> Published:
    return Published(
        "tiny", "tiny", str(write_recipe(folder / "tiny.json", recipe_json(**settings)))
    )


def test_weights_are_made_once(tmp_path: Path) -> None:
    made = make_weights(tiny(tmp_path), tmp_path)
    stored = torch.load(made.trained / "fold_0" / "checkpoint_final.pth", weights_only=False)
    kernel = stored["network_weights"]["encoder.stages.1.0.convs.0.conv.weight"]
    assert float(kernel.std()) == pytest.approx(math.sqrt(2 / kernel[0].numel()), rel=0.1)
    before = (made.model / "model.json").stat().st_mtime_ns
    assert make_weights(tiny(tmp_path), tmp_path) == made
    assert (made.model / "model.json").stat().st_mtime_ns == before
    other = make_weights(tiny(tmp_path, spacing_zyx=[3.0, 1.0, 1.0]), tmp_path)
    assert load_model(other.model).config.spacing == (3.0, 1.0, 1.0)


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE_PYTHON.exists(), reason="no nnU-Net: run `make oracle`")
@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_nnunet_and_the_app_have_the_same_weights(kind: str, tmp_path: Path) -> None:
    made = make_weights(tiny(tmp_path, network=kind), tmp_path)
    scan = write_scan(tmp_path / "x_0000.nii.gz", smooth_noise((20, 40, 40), 1), (3.0, 2.0, 2.0))
    ours, theirs = tmp_path / "ours.nii.gz", tmp_path / "theirs.nii.gz"
    job = {"do": "predict", "folders": [str(made.trained)], "files": [str(scan)]}
    run_oracle([job | {"mask": str(theirs), "step_size": 0.5, "tta": False}], tmp_path)
    options = ["--model", str(made.model), "--device", "cpu", "--exact"]
    assert app(["--input", str(scan), "--output", str(ours), *options]) == 0
    mask, expected = (sitk.GetArrayFromImage(sitk.ReadImage(file)) for file in (ours, theirs))
    assert np.array_equal(mask, expected)
    assert 0 < np.count_nonzero(mask) < mask.size
