"""Ensembles over configurations with --exact against nnUNetv2_ensemble: no voxel may differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from app.model import load_model
from tests.nnunet_models import (
    Json,
    dataset,
    plans,
    run_oracle,
    smooth_noise,
    write_scan,
)
from tests.parity import NEEDS_ORACLE, TORCH, segment, voxels
from training.export import export

pytestmark = NEEDS_ORACLE
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}
THREE = {"background": 0, "a": 1, "b": 2}
SHAPE, SPACING = (21, 50, 46), (4.0, 1.2, 1.3)
FULL, LOW = plans(), plans((5.0, 3.0, 3.0), patch=(8, 24, 16), name="3d_lowres")
RESIDUAL = plans((4.0, 1.0, 1.1), residual=True, schemes=("ZScoreNormalization",))
TURNED = plans((1.5, 4.5, 1.5), transpose=(2, 0, 1), data=TORCH, logits=TORCH)


@dataclass(frozen=True)
class Variant:
    models: tuple[Json, ...]
    dataset: Json = field(default_factory=dataset)
    tta: bool = False


VARIANTS = {
    "two resolutions": Variant((FULL, LOW)),
    "two trainers": Variant((FULL, FULL)),
    "three networks": Variant((LOW, FULL, RESIDUAL), dataset(THREE), tta=True),
    "regions": Variant((FULL, LOW), dataset(REGIONS, regions_class_order=[1, 2, 3])),
    "another order of axes": Variant((FULL, TURNED), dataset(THREE)),
}


def _jobs(variant: Variant, folder: Path, scan: Path) -> list[Json]:
    jobs: list[Json] = []
    for number, settings in enumerate(variant.models):
        jobs += [
            {
                "do": "build",
                "folder": str(folder / f"trained_{number}"),
                "plans": settings,
                "dataset": variant.dataset,
                "configuration": list(settings["configurations"])[-1],
                "folds": ["0", "1"] if number == 0 else ["all"],
                "seed": 10 * number,
                "mirror_axes": [0, 1, 2],
            },
            {
                "do": "predict",
                "folders": [str(folder / f"trained_{number}")],
                "files": [str(scan)],
                "mask": str(folder / f"nnunet_{number}.nii.gz"),
                "probabilities": True,
                "step_size": 0.5,
                "tta": variant.tta,
            },
        ]
    together = {
        "do": "ensemble",
        "folder": jobs[0]["folder"],
        "masks": [job["mask"] for job in jobs if job["do"] == "predict"],
        "mask": str(folder / "nnunet.nii.gz"),
        "probabilities": True,
    }
    return [*jobs, together]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every variant's folder, with nnU-Net's masks and probabilities in it, and the models."""
    root = tmp_path_factory.mktemp("parity")
    values = smooth_noise(SHAPE, 0)
    values[:3], values[-4:], values[:, :9] = 0, 0, 0
    scan = write_scan(root / "scan.nii.gz", values, SPACING)
    folders, jobs = {}, []
    for number, (name, variant) in enumerate(VARIANTS.items()):
        folders[name] = root / str(number)
        folders[name].mkdir()
        jobs += _jobs(variant, folders[name], scan)
    run_oracle(jobs, root)
    for name, folder in folders.items():
        first, *others = (folder / f"trained_{n}" for n in range(len(VARIANTS[name].models)))
        export([first], folder / "model", ensemble=others)
    return folders


@pytest.mark.parametrize("name", VARIANTS)
def test_no_voxel_differs(name: str, variants: dict[str, Path]) -> None:
    folder, variant = variants[name], VARIANTS[name]
    tta = ["--tta"] if variant.tta else []
    ours = segment(
        folder.parent / "scan.nii.gz", folder, "app.nii.gz", "--exact", "--probabilities", *tta
    )
    theirs = voxels(folder / "nnunet.nii.gz")
    assert ours.dtype == theirs.dtype
    assert np.count_nonzero(ours != theirs) == 0
    first = voxels(folder / "nnunet_0.nii.gz")
    assert np.count_nonzero(first != theirs) > 100  # the others have a say
    with np.load(folder / "app.npz") as a, np.load(folder / "nnunet.npz") as b:
        found, right = a["probabilities"], b["probabilities"].astype(np.float16)
    assert found.shape == right.shape
    assert np.count_nonzero(found != right) <= 2  # the last bit of an exponential


@pytest.mark.parametrize("name", VARIANTS)
def test_streamed(name: str, variants: dict[str, Path]) -> None:
    folder, variant = variants[name], VARIANTS[name]
    tta = ["--tta"] if variant.tta else []
    ours = segment(folder.parent / "scan.nii.gz", folder, "streamed.nii.gz", *tta)
    assert np.mean(ours != voxels(folder / "nnunet.nii.gz")) < 0.006
    assert len(load_model(folder / "model").others) == len(variant.models) - 1
