"""Cascades with --exact against nnU-Net's own prediction of both stages: no voxel may differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app import loading
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
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3, "ignore": 4}
THREE = {"background": 0, "a": 1, "b": 2}
LOW, CASCADE = "3d_lowres", "3d_cascade_fullres"


def with_border(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zeros around it, some of which reach into its box, and a hole."""
    voxels = voxels.copy()
    voxels[:3], voxels[-4:], voxels[:, :9], voxels[:, :, -7:] = 0, 0, 0, 0
    voxels[3:12, 9:30, :20] = 0
    voxels[10:14, 30:36, 26:32] = 0
    return voxels


@dataclass(frozen=True)
class Variant:
    full: Json
    low: Json = field(default_factory=lambda: plans((5.0, 3.0, 3.0), patch=(8, 24, 16)))
    dataset: Json = field(default_factory=dataset)
    shape: tuple[int, int, int] = (21, 50, 46)
    spacing: tuple[float, float, float] = (4.0, 1.2, 1.3)
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.asarray
    tta: bool = False
    probabilities: bool = False

    def plans(self) -> Json:
        configurations = {
            **self.full["configurations"],
            "low": self.low["configurations"]["base"],
            LOW: {"inherits_from": "low", "next_stage": CASCADE},
            CASCADE: {"inherits_from": "3d_fullres", "previous_stage": LOW},
        }
        return {**self.full, "configurations": configurations}


TWICE = plans((2.0, 0.6, 0.65))  # samples halfway between two voxels: the nearest one decides
UNSEPARATED = plans((2.0, 2.0, 2.0))
UNSEPARATED["configurations"]["base"]["resampling_fn_seg_kwargs"]["force_separate_z"] = None
VARIANTS = {
    "two classes": Variant(plans()),
    "three classes": Variant(plans(), dataset=dataset(THREE), tta=True),
    "regions": Variant(plans(), dataset=dataset(REGIONS, regions_class_order=[1, 2, 3])),
    "separate z": Variant(plans((5.0, 1.0, 1.0)), spacing=(5.5, 1.2, 1.3)),
    "separate z by the scan, of labels alone": Variant(UNSEPARATED, spacing=(7.0, 1.2, 1.3)),
    "zero border": Variant(plans(), dataset=dataset(THREE), change=with_border),
    "zero border, finer": Variant(TWICE, dataset=dataset(THREE), change=with_border),
    "spacing kept": Variant(plans((4.0, 1.2, 1.3))),
    "twice as fine": Variant(TWICE, dataset=dataset(THREE)),
    "coarser": Variant(plans((6.0, 2.4, 2.6)), spacing=(2.0, 1.2, 1.3)),
    "transposed": Variant(
        plans((1.5, 4.5, 1.5), transpose=(2, 0, 1)),
        plans((3.0, 6.0, 3.0), transpose=(2, 0, 1)),
        spacing=(5.0, 1.2, 1.3),
    ),
    "torch": Variant(plans(data=TORCH, logits=TORCH), dataset=dataset(THREE)),
    "two channels": Variant(
        plans(schemes=("RescaleTo01Normalization", "NoNormalization")),
        plans((5.0, 3.0, 3.0), schemes=("RescaleTo01Normalization", "NoNormalization")),
        dataset=dataset(channels=2),
        change=with_border,
    ),
    "probabilities": Variant(plans(), dataset=dataset(THREE), probabilities=True),
}


def _trained(folder: Path, configuration: str) -> Path:
    return folder / f"nnUNetTrainer__nnUNetPlans__{configuration}"


def _jobs(variant: Variant, folder: Path) -> list[Json]:
    jobs: list[Json] = [
        {
            "do": "build",
            "folder": str(_trained(folder, configuration)),
            "plans": variant.plans(),
            "dataset": variant.dataset,
            "configuration": configuration,
            "folds": ["0", "1"],
            "seed": seed,
            "mirror_axes": [0, 1, 2],
        }
        for seed, configuration in ((3, LOW), (5, CASCADE))
    ]
    files = []
    for channel in variant.dataset["channel_names"]:
        values = variant.change(smooth_noise(variant.shape, seed=int(channel)))
        file = folder / f"scan_{int(channel):04d}.nii.gz"
        files.append(str(write_scan(file, values, variant.spacing)))
    (folder / "low").mkdir()
    for configuration, mask in ((LOW, "low/scan.nii.gz"), (CASCADE, "nnunet.nii.gz")):
        jobs.append(
            {
                "do": "predict",
                "folders": [str(_trained(folder, configuration))],
                "files": files,
                "mask": str(folder / mask),
                "previous": str(folder / "low") if configuration == CASCADE else None,
                "probabilities": variant.probabilities,
                "step_size": 0.5,
                "tta": variant.tta,
            }
        )
    return jobs


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every variant's folder, with nnU-Net's masks of both stages in it, and the model."""
    root = tmp_path_factory.mktemp("parity")
    folders, jobs = {}, []
    for number, (name, variant) in enumerate(VARIANTS.items()):
        folders[name] = root / str(number)
        folders[name].mkdir()
        jobs += _jobs(variant, folders[name])
    run_oracle(jobs, root)
    for folder in folders.values():
        export([_trained(folder, CASCADE)], folder / "model")
    return folders


@pytest.mark.parametrize("name", VARIANTS)
def test_no_voxel_differs(name: str, variants: dict[str, Path]) -> None:
    folder, variant = variants[name], VARIANTS[name]
    options = ["--tta"] * variant.tta + ["--probabilities"] * variant.probabilities
    ours = segment(folder / "scan_0000.nii.gz", folder, "app.nii.gz", "--exact", *options)
    theirs, low = voxels(folder / "nnunet.nii.gz"), voxels(folder / "low" / "scan.nii.gz")
    assert np.count_nonzero(ours != theirs) == 0
    assert len(np.unique(theirs)) > 1
    values = [v for name, v in variant.dataset["labels"].items() if name != "ignore"]
    assert len(np.unique(low)) == len(values)  # else the one-hot channels say nothing
    if variant.probabilities:
        with np.load(folder / "app.npz") as a, np.load(folder / "nnunet.npz") as b:
            found, right = a["probabilities"], b["probabilities"].astype(np.float16)
        assert np.count_nonzero(found != right) <= 2


@pytest.mark.parametrize("name", VARIANTS)
def test_streamed_in_float32(
    name: str, variants: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random networks make much of the few voxels in which the first stage differs."""
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: False)
    folder, variant = variants[name], VARIANTS[name]
    ours = segment(folder / "scan_0000.nii.gz", folder, "streamed.nii.gz", *["--tta"] * variant.tta)
    differ = np.mean(ours != voxels(folder / "nnunet.nii.gz"))
    assert differ < 0.02
