"""--exact against nnU-Net itself: the same scans, the same weights, no voxel may differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from app.__main__ import main
from app.exact import mean_logits
from app.image import read_image
from app.model import load_model
from app.predict import Options, Predictor
from app.preprocess import prepare, preprocess
from tests.app.at_work import means
from tests.nnunet_models import (
    Json,
    crop_scan,
    dataset,
    plans,
    run_oracle,
    smooth_noise,
    write_scan,
)
from tests.parity import NEEDS_ORACLE, TORCH
from training.export import export
from training.planning import plans as recipe_plans
from training.recipes import load_recipe

pytestmark = NEEDS_ORACLE
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3, "ignore": 4}


def _with_border(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    voxels = voxels.copy()
    voxels[:3], voxels[-4:], voxels[:, :9], voxels[:, :, -7:] = 0, 0, 0, 0
    voxels[10:14, 20:26, 20:26] = 0  # a hole
    return voxels


@dataclass(frozen=True)
class Variant:
    plans: Json
    dataset: Json = field(default_factory=dataset)
    shape: tuple[int, int, int] = (21, 50, 46)
    spacing: tuple[float, float, float] = (4.0, 1.2, 1.3)
    dtype: Any = np.int16
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.asarray
    folds: tuple[str, ...] = ("0",)
    folders: int = 1
    tta: bool = False
    step_size: float = 0.5


ISO = (1.5, 1.5, 1.5)
VARIANTS = {
    "default resampling": Variant(plans(ISO), spacing=(2.0, 1.2, 1.3), shape=(40, 50, 46)),
    "default, separate z": Variant(plans((5.0, 1.0, 1.0)), spacing=(5.5, 1.2, 1.3)),
    "separate z of the scan alone": Variant(plans(ISO), spacing=(6.0, 1.2, 1.3)),
    "separate z of the plans alone": Variant(plans((6.0, 1.5, 1.5)), spacing=(2.0, 1.2, 1.3)),
    "separate x": Variant(plans((1.5, 1.5, 6.0)), spacing=(1.2, 1.3, 5.0), shape=(50, 46, 21)),
    "separate z forbidden": Variant(plans((6.0, 1.5, 1.5), force_separate_z=False)),
    "separate z forced": Variant(plans((3.0, 1.5, 1.5), force_separate_z=True)),
    "in-plane spacing kept": Variant(plans((5.0, 1.2, 1.3)), spacing=(8.0, 1.2, 1.3)),
    "spacing kept": Variant(plans((4.0, 1.2, 1.3))),
    "twice the spacing": Variant(plans((3.0, 2.0, 2.0)), spacing=(1.5, 1.0, 1.0)),
    "linear data": Variant(plans(ISO, data_order=1), spacing=(3.0, 1.5, 0.75), shape=(20, 50, 90)),
    "torch resampling": Variant(plans(ISO, data=TORCH, logits=TORCH), spacing=(2.0, 1.2, 1.3)),
    "torch, separate z": Variant(plans((5.0, 1.0, 1.0), data=TORCH, logits=TORCH)),
    "default data, torch logits": Variant(plans(ISO, logits=TORCH), spacing=(2.0, 1.2, 1.3)),
    "labels as text": Variant(plans(ISO), dataset({"background": "0", "lesion": "1"})),
    "transpose": Variant(plans((1.5, 4.5, 1.5), transpose=(2, 0, 1)), spacing=(5.0, 1.2, 1.3)),
    "zero border": Variant(plans(), change=_with_border),
    "all zero": Variant(plans(), change=np.zeros_like),
    "z-score": Variant(plans(schemes=("ZScoreNormalization",)), change=_with_border),
    "z-score with mask": Variant(
        plans(schemes=("ZScoreNormalization",), use_mask=True), change=_with_border
    ),
    "z-score with mask, separate x": Variant(
        plans((1.5, 1.5, 6.0), schemes=("ZScoreNormalization",), use_mask=True),
        spacing=(1.2, 1.3, 5.0),
        shape=(50, 46, 21),
        change=_with_border,
    ),
    "two folds": Variant(plans(), folds=("0", "1")),
    "two folders": Variant(plans(), folders=2),
    "fold all": Variant(plans(), folds=("all",)),
    "regions and ignore": Variant(plans(), dataset(REGIONS, regions_class_order=[1, 2, 3])),
    "old plans": Variant(plans(legacy=True)),
    "old plans, residual": Variant(plans(legacy=True, residual=True)),
    "residual encoder": Variant(plans(residual=True)),
    "low resolution": Variant(plans((5.0, 3.0, 3.0), name="3d_lowres"), shape=(30, 80, 70)),
    "mirrored": Variant(plans(patch=(8, 32, 32)), tta=True),
    "other step size": Variant(plans(patch=(8, 32, 32)), step_size=0.7),
    "smaller than a patch": Variant(plans(patch=(24, 64, 64)), shape=(9, 33, 40)),
    "one slice": Variant(plans(), shape=(1, 50, 46)),
    "three classes": Variant(plans(), dataset({"background": 0, "a": 1, "b": 2})),
    "two channels": Variant(
        plans(schemes=("RescaleTo01Normalization", "NoNormalization")), dataset(channels=2)
    ),
    "float32": Variant(plans(), dtype=np.float32),
    "published, 5.6M": Variant(
        recipe_plans(load_recipe("huang"), "Dataset900_Parity"), shape=(30, 90, 80)
    ),
    "published, 102M": Variant(
        recipe_plans(load_recipe("dkfz-batch8"), "Dataset900_Parity"),
        spacing=(2.0, 0.8, 0.9),
    ),
    "rgb": Variant(
        plans(schemes=("RGBTo01Normalization",)),
        dtype=np.uint8,
        change=lambda v: np.clip(v, 0, 255),
    ),
}


def _jobs(name: str, variant: Variant, folder: Path) -> list[Json]:
    """nnU-Net's jobs for a variant: build its trained folders, segment its scan."""
    jobs: list[Json] = []
    for number in range(variant.folders):
        jobs.append(
            {
                "do": "build",
                "folder": str(folder / f"trained_{number}"),
                "plans": variant.plans,
                "dataset": variant.dataset,
                "configuration": list(variant.plans["configurations"])[-1],
                "folds": list(variant.folds),
                "seed": 100 * number + len(name),
                "mirror_axes": [0, 1, 2],
            }
        )
    files = []
    for channel in variant.dataset["channel_names"]:
        voxels = variant.change(smooth_noise(variant.shape, seed=int(channel)))
        file = folder / f"scan_{int(channel):04d}.nii.gz"
        files.append(str(write_scan(file, voxels, variant.spacing, variant.dtype)))
    jobs.append(
        {
            "do": "predict",
            "folders": [j["folder"] for j in jobs],
            "files": files,
            "mask": str(folder / "nnunet.nii.gz"),
            "step_size": variant.step_size,
            "tta": variant.tta,
        }
    )
    return jobs


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every variant's folder, with nnU-Net's mask in it."""
    root = tmp_path_factory.mktemp("parity")
    folders, jobs = {}, []
    for number, (name, variant) in enumerate(VARIANTS.items()):
        folders[name] = root / str(number)
        folders[name].mkdir()
        jobs += _jobs(name, variant, folders[name])
    run_oracle(jobs, root)
    return folders


def _masks(mask: Path, reference: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    ours, theirs = sitk.ReadImage(mask), sitk.ReadImage(reference)
    for geometry in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
        assert geometry(ours) == pytest.approx(geometry(theirs), abs=1e-6)
    return sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_voxel_differs(name: str, variants: dict[str, Path]) -> None:
    folder, variant = variants[name], VARIANTS[name]
    export([folder / f"trained_{n}" for n in range(variant.folders)], folder / "model")
    arguments = ["--input", folder / "scan_0000.nii.gz", "--output", folder / "app.nii.gz"]
    arguments += ["--model", folder / "model", "--device", "cpu", "--exact"]
    arguments += ["--step-size", variant.step_size, *(["--tta"] if variant.tta else [])]
    assert main([str(a) for a in arguments]) == 0
    ours, theirs = _masks(folder / "app.nii.gz", folder / "nnunet.nii.gz")
    assert ours.dtype == theirs.dtype
    assert np.count_nonzero(ours != theirs) == 0
    assert name in ("all zero",) or len(np.unique(theirs)) > 1  # else there is nothing to compare


REAL_SCANS = {
    "CRLM-CT-1004_ct": (130, 130, 20),  # -3024 HU padding
    "GETilt-head_ct": (130, 130, 28),  # oblique
    "IBSI-phantom_ct": (100, 100, 30),  # float32
    "LIDC-IDRI-0314-part_ct": (120, 120, 40),
    "TotalSeg-example_ct": (80, 80, 60),  # int32
}


@pytest.mark.parametrize("model", ["3d_tiny", "3d_tinyres"])
def test_genuine_trained_folders(model: str, real_data: Path, tmp_path: Path) -> None:
    """Trained by nnU-Net; they predict background, so the logits are compared, bit by bit."""
    trained = real_data / "nnunet_models" / model
    export([trained], tmp_path / "model")
    exact = Options(torch.device("cpu"), exact=True)
    predictor = Predictor(load_model(tmp_path / "model"), exact)
    jobs: list[Json] = []
    for name in ("GETilt-head_ct", "TotalSeg-example_ct"):
        file = crop_scan(
            real_data / "ct" / f"{name}.nii.gz", tmp_path / f"{name}.nii.gz", (60, 60, 30)
        )
        jobs.append(
            {
                "do": "predict",
                "folders": [str(trained)],
                "files": [str(file)],
                "mask": str(tmp_path / f"{name}_nnunet.nii.gz"),
                "logits": str(tmp_path / f"{name}.npz"),
                "step_size": 0.5,
                "tta": False,
            }
        )
    run_oracle(jobs, tmp_path)
    for job in jobs:
        scan = read_image(Path(job["files"][0]))
        with torch.inference_mode():
            config = predictor.config
            prepared = prepare([scan.voxels], scan.spacing_zyx, config, True, False)
            data = preprocess(prepared, config, torch.float64, exact.device)
            logits = mean_logits(data, config, predictor.stages[0].heads, means(predictor))
        theirs = np.load(job["logits"])
        assert np.array_equal(data.numpy(), theirs["data"])
        assert np.array_equal(logits.numpy(), theirs["logits"])
        assert logits.std() > 0.1


def test_real_scans(real_data: Path, tmp_path: Path) -> None:
    """Real voxels, headers and types, cropped so that nnU-Net takes seconds."""
    jobs = _jobs("real", Variant(plans((3.0, 1.6, 1.6))), tmp_path)[:1]
    for name, size in REAL_SCANS.items():
        file = crop_scan(
            real_data / "ct" / f"{name}.nii.gz", tmp_path / f"{name}_0000.nii.gz", size
        )
        jobs.append(
            {
                "do": "predict",
                "folders": [str(tmp_path / "trained_0")],
                "files": [str(file)],
                "mask": str(tmp_path / f"{name}_nnunet.nii.gz"),
                "step_size": 0.5,
                "tta": False,
            }
        )
    run_oracle(jobs, tmp_path)
    export([tmp_path / "trained_0"], tmp_path / "model")
    for name in REAL_SCANS:
        arguments = ["--input", tmp_path / f"{name}_0000.nii.gz", "--output", tmp_path]
        arguments += ["--model", tmp_path / "model", "--device", "cpu", "--exact"]
        assert main([str(a) for a in arguments]) == 0
        ours, theirs = _masks(tmp_path / f"{name}.nii.gz", tmp_path / f"{name}_nnunet.nii.gz")
        assert np.count_nonzero(ours != theirs) == 0, name
        assert len(np.unique(theirs)) == 2, name
