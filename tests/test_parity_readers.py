"""Models of nnU-Net's readers NibabelIO and NibabelIOWithReorient: masks equal nnU-Net's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from app.__main__ import main
from tests.nnunet_models import Json, dataset, plans, run_oracle, smooth_noise
from tests.oriented import ORIENTED, write_oriented
from tests.parity import NEEDS_ORACLE
from training.export import export

pytestmark = NEEDS_ORACLE
SHAPE = (46, 50, 21)
READERS = ("NibabelIO", "NibabelIOWithReorient")
MODELS = {
    "CT": plans((3.0, 1.6, 1.6)),
    # Means are rounded as the order of voxels in memory has it.
    "z-score, transposed": plans(
        (1.6, 1.6, 3.0),
        (32, 32, 16),
        ("ZScoreNormalization",),
        use_mask=True,
        transpose=(1, 2, 0),
    ),
}
CASES = [(model, reader) for model in MODELS for reader in READERS]


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case, with its exported model, the scans and nnU-Net's masks of them."""
    root = tmp_path_factory.mktemp("readers")
    jobs: list[Json] = []
    for number, (model, reader) in enumerate(CASES):
        folder = root / f"{model} {reader}"
        folder.mkdir()
        jobs.append(
            {
                "do": "build",
                "folder": str(folder / "trained"),
                "plans": MODELS[model] | {"image_reader_writer": reader},
                "dataset": dataset(),
                "configuration": "3d_fullres",
                "folds": ["0"],
                "seed": number,
                "mirror_axes": [0, 1, 2],
            }
        )
        for seed, name in enumerate(ORIENTED):
            voxels = smooth_noise(SHAPE, seed).astype(np.int16)
            voxels[:5] = 0  # so that what is looked at is not all of the scan
            scan = write_oriented(folder / f"{name}_0000.nii.gz", name, voxels)
            jobs.append(
                {
                    "do": "predict",
                    "folders": [str(folder / "trained")],
                    "files": [str(scan)],
                    "mask": str(folder / f"{name}_nnunet.nii.gz"),
                    "step_size": 0.5,
                    "tta": False,
                }
            )
    run_oracle(jobs, root)
    for model, reader in CASES:
        export([root / f"{model} {reader}" / "trained"], root / f"{model} {reader}" / "model")
    return root


@pytest.mark.parametrize("name", ORIENTED)
@pytest.mark.parametrize(("model", "reader"), CASES)
def test_no_voxel_differs(model: str, reader: str, name: str, predicted: Path) -> None:
    folder = predicted / f"{model} {reader}"
    mask = folder / f"{name}.nii.gz"
    arguments = ["--input", folder / f"{name}_0000.nii.gz", "--output", mask]
    arguments += ["--model", folder / "model", "--device", "cpu", "--exact"]
    assert main([str(a) for a in arguments]) == 0
    ours: Any = nibabel.load(mask)
    theirs: Any = nibabel.load(folder / f"{name}_nnunet.nii.gz")
    assert np.count_nonzero(np.asarray(ours.dataobj) != np.asarray(theirs.dataobj)) == 0
    assert np.allclose(ours.affine, theirs.affine, atol=1e-4)
    assert len(np.unique(ours.dataobj)) == 2
