"""--exact --probabilities against nnU-Net's --save_probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.__main__ import main
from tests.nnunet_models import (
    Json,
    dataset,
    plans,
    run_oracle,
    smooth_noise,
    write_scan,
)
from tests.parity import NEEDS_ORACLE, TORCH, voxels
from training.export import export

pytestmark = NEEDS_ORACLE
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}
SHAPE, SPACING = (21, 50, 46), (4.0, 1.2, 1.3)
VARIANTS: dict[str, tuple[Json, Json]] = {
    "two classes": (plans((3.0, 1.5, 1.5)), dataset()),
    "three classes": (plans((5.0, 1.0, 1.0)), dataset({"background": 0, "a": 1, "b": 2})),
    "regions": (plans((3.0, 1.5, 1.5)), dataset(REGIONS, regions_class_order=[1, 2, 3])),
    "transposed": (plans((1.5, 4.5, 1.5), transpose=(2, 0, 1)), dataset()),
    "spacing kept": (plans(SPACING), dataset()),
    "torch": (plans((3.0, 1.5, 1.5), data=TORCH, logits=TORCH), dataset()),
}


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every variant's folder, with nnU-Net's mask and probabilities in it."""
    root = tmp_path_factory.mktemp("parity")
    voxels = smooth_noise(SHAPE, 0)
    voxels[:3], voxels[-4:], voxels[:, :9] = 0, 0, 0
    scan = write_scan(root / "scan.nii.gz", voxels, SPACING)
    folders, jobs = {}, []
    for number, (name, (settings, labels)) in enumerate(VARIANTS.items()):
        folders[name] = root / str(number)
        folders[name].mkdir()
        jobs += [
            {
                "do": "build",
                "folder": str(folders[name] / "trained"),
                "plans": settings,
                "dataset": labels,
                "configuration": "3d_fullres",
                "folds": ["0", "1"],
                "seed": number,
                "mirror_axes": None,
            },
            {
                "do": "predict",
                "folders": [str(folders[name] / "trained")],
                "files": [str(scan)],
                "mask": str(folders[name] / "nnunet.nii.gz"),
                "probabilities": True,
                "step_size": 0.5,
                "tta": False,
            },
        ]
    run_oracle(jobs, root)
    return folders


@pytest.mark.parametrize("name", VARIANTS)
def test_probabilities_are_nnunets(name: str, variants: dict[str, Path]) -> None:
    folder = variants[name]
    export([folder / "trained"], folder / "model")
    arguments = ["--input", folder.parent / "scan.nii.gz", "--output", folder / "app.nii.gz"]
    arguments += ["--model", folder / "model", "--device", "cpu", "--exact", "--probabilities"]
    assert main([str(a) for a in arguments]) == 0
    with np.load(folder / "app.npz") as ours, np.load(folder / "nnunet.npz") as theirs:
        found, right = ours["probabilities"], theirs["probabilities"]
    assert (found.dtype, right.dtype) == (np.float16, np.float32)
    # The last bit of an exponential depends on how the voxels are cut among threads.
    off = np.abs(found.astype(np.float32) - right)
    assert (off <= np.maximum(right * 2**-11, 2**-25) + 2**-23).all()
    assert np.count_nonzero(found != right.astype(np.float16)) <= 2
    mask = voxels(folder / "nnunet.nii.gz")
    assert len(np.unique(mask)) > 1
    assert np.count_nonzero(voxels(folder / "app.nii.gz") != mask) == 0
