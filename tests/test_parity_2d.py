"""2D configurations with --exact against nnU-Net itself: no voxel may differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from app import loading
from tests.nnunet_models import (
    Json,
    dataset,
    flat,
    plans,
    run_oracle,
    smooth_noise,
    write_scan,
)
from tests.parity import NEEDS_ORACLE, TORCH, segment, voxels
from training.export import export

pytestmark = NEEDS_ORACLE
WIDE = [32, 64, 128]  # torch's kernels for so many channels differ between two and three dimensions


@dataclass(frozen=True)
class Variant:
    plans: Json
    dataset: Json = field(default_factory=dataset)
    shape: tuple[int, int, int] = (11, 50, 46)
    spacing: tuple[float, float, float] = (4.0, 1.2, 1.3)
    tta: bool = False
    ensemble: bool = False


VARIANTS = {
    "two classes": Variant(flat(plans(name="2d"))),
    "as wide as trained": Variant(flat(plans(name="2d"), WIDE), shape=(5, 70, 66)),
    "residual": Variant(flat(plans(name="2d", residual=True), WIDE), shape=(5, 70, 66)),
    "thin sections": Variant(flat(plans(name="2d")), spacing=(1.0, 1.2, 1.3)),
    "mirrored": Variant(flat(plans(name="2d")), tta=True),
    "transposed": Variant(
        flat(plans(name="2d", transpose=(2, 0, 1))), spacing=(1.3, 1.2, 4.0), shape=(50, 46, 9)
    ),
    "torch": Variant(flat(plans(name="2d", data=TORCH, logits=TORCH)), spacing=(2.0, 1.2, 1.3)),
    "old plans": Variant(flat(plans(name="2d", legacy=True))),
    "two channels, z-score": Variant(
        flat(plans(name="2d", schemes=("ZScoreNormalization", "NoNormalization"))),
        dataset(channels=2),
    ),
    "smaller than a patch": Variant(flat(plans(name="2d")), shape=(3, 20, 22)),
    "one section": Variant(flat(plans(name="2d")), shape=(1, 50, 46)),
    "beside 3d_fullres": Variant(flat(plans(name="2d")), ensemble=True),
}


def _jobs(variant: Variant, folder: Path) -> list[Json]:
    files = []
    for channel in variant.dataset["channel_names"]:
        values = smooth_noise(variant.shape, seed=int(channel))
        file = folder / f"scan_{int(channel):04d}.nii.gz"
        files.append(str(write_scan(file, values, variant.spacing)))
    settings = [variant.plans, *([plans()] if variant.ensemble else [])]
    jobs: list[Json] = []
    for number, content in enumerate(settings):
        three = number > 0
        jobs += [
            {
                "do": "build",
                "folder": str(folder / f"trained_{number}"),
                "plans": content,
                "dataset": variant.dataset,
                "configuration": "3d_fullres" if three else "2d",
                "folds": ["0"] if three else ["0", "1"],
                "seed": number,
                "mirror_axes": [0, 1, 2] if three else [0, 1],
            },
            {
                "do": "predict",
                "folders": [str(folder / f"trained_{number}")],
                "files": files,
                "mask": str(folder / f"nnunet_{number}.nii.gz"),
                "probabilities": variant.ensemble,
                "step_size": 0.5,
                "tta": variant.tta,
            },
        ]
    if variant.ensemble:
        masks = [job["mask"] for job in jobs if job["do"] == "predict"]
        mask = str(folder / "nnunet.nii.gz")
        jobs.append({"do": "ensemble", "folder": jobs[0]["folder"], "masks": masks, "mask": mask})
    return jobs


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every variant's folder, with nnU-Net's mask in it, and the model."""
    root = tmp_path_factory.mktemp("parity")
    folders, jobs = {}, []
    for number, (name, variant) in enumerate(VARIANTS.items()):
        folders[name] = root / str(number)
        folders[name].mkdir()
        jobs += _jobs(variant, folders[name])
    run_oracle(jobs, root)
    for name, folder in folders.items():
        others = [folder / "trained_1"] * VARIANTS[name].ensemble
        export([folder / "trained_0"], folder / "model", ensemble=others)
    return folders


@pytest.mark.parametrize("name", VARIANTS)
def test_no_voxel_differs(name: str, variants: dict[str, Path]) -> None:
    folder, variant = variants[name], VARIANTS[name]
    ours = segment(
        folder / "scan_0000.nii.gz", folder, "app.nii.gz", "--exact", *["--tta"] * variant.tta
    )
    theirs = voxels(folder / ("nnunet.nii.gz" if variant.ensemble else "nnunet_0.nii.gz"))
    assert np.count_nonzero(ours != theirs) == 0
    assert len(np.unique(theirs)) > 1


@pytest.mark.parametrize("name", VARIANTS)
def test_streamed_in_float32(
    name: str, variants: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: False)
    folder, variant = variants[name], VARIANTS[name]
    ours = segment(folder / "scan_0000.nii.gz", folder, "streamed.nii.gz", *["--tta"] * variant.tta)
    theirs = voxels(folder / ("nnunet.nii.gz" if variant.ensemble else "nnunet_0.nii.gz"))
    assert np.mean(ours != theirs) < 0.004
