"""Masks after nnU-Net's postprocessing equal those of nnU-Net's own apply_postprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from app.__main__ import main
from tests.nnunet_models import (
    Json,
    dataset,
    plans,
    run_oracle,
    smooth_noise,
    write_scan,
)
from tests.parity import NEEDS_ORACLE
from training.export import export

pytestmark = NEEDS_ORACLE
CLASSES = dataset({"background": 0, "a": 1, "b": 2})
REGIONS = dataset({"background": 0, "whole": [1, 2], "core": 2}, regions_class_order=[1, 2])
TURNED = {"image_reader_writer": "NibabelIOWithReorient"}
# Plans, dataset, and the groups of labels of which nnU-Net is to keep the largest component.
CASES: dict[str, tuple[Json, Json, list[Any]]] = {
    "two classes": (plans(), dataset(), [[1]]),
    "foreground, then each class": (plans(), CLASSES, [[1, 2], 1, 2]),
    "a class alone, transposed": (plans((1.5, 1.5, 3.0), transpose=(1, 2, 0)), CLASSES, [1]),
    "regions": (plans(), REGIONS, [{"region": [1, 2]}, 2]),
    "a reader that turns": (plans() | TURNED, CLASSES, [[1, 2], 2]),
}


def _segment(folder: Path, model: str, mask: str, exact: bool) -> None:
    arguments = ["--input", folder / "scan_0000.nii.gz", "--output", folder / mask]
    arguments += ["--model", folder / model, "--device", "cpu", *(["--exact"] if exact else [])]
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each case: what nnU-Net predicts and makes of that; streamed masks likewise."""
    root = tmp_path_factory.mktemp("postprocessing")
    jobs: list[Json] = []
    for seed, (name, (plans_json, dataset_json, _)) in enumerate(CASES.items()):
        folder = root / name
        folder.mkdir()
        scan = write_scan(
            folder / "scan_0000.nii.gz", smooth_noise((21, 50, 46), seed), (4.0, 1.2, 1.3)
        )
        trained = str(folder / "trained")
        jobs += [
            {
                "do": "build",
                "folder": trained,
                "plans": plans_json,
                "dataset": dataset_json,
                "configuration": "3d_fullres",
                "folds": ["0"],
                "seed": seed,
                "mirror_axes": [0, 1, 2],
            },
            {
                "do": "predict",
                "folders": [trained],
                "files": [str(scan)],
                "mask": str(folder / "nnunet.nii.gz"),
                "step_size": 0.5,
                "tta": False,
            },
        ]
    run_oracle(jobs, root)
    jobs = []
    for name, (_, _, groups) in CASES.items():
        folder = root / name
        export([folder / "trained"], folder / "plain")
        _segment(folder, "plain", "streamed.nii.gz", exact=False)
        cross_validation = folder / "trained" / "crossval_results_folds_0"
        cross_validation.mkdir()
        jobs.append(
            {
                "do": "postprocess",
                "groups": groups,
                "pkl": str(cross_validation / "postprocessing.pkl"),
                "masks": [
                    [str(folder / f"{way}.nii.gz"), str(folder / f"{way}_after.nii.gz")]
                    for way in ("nnunet", "streamed")
                ],
            }
        )
    run_oracle(jobs, root)
    return root


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_no_voxel_differs(name: str, exact: bool, predicted: Path) -> None:
    """Exact: from nnU-Net's prediction; as a stream: from what the stream gives without it."""
    folder, way = predicted / name, "nnunet" if exact else "streamed"
    export([folder / "trained"], folder / f"with_{way}")
    _segment(folder, f"with_{way}", f"app_{way}.nii.gz", exact)
    ours, after, before = (
        sitk.GetArrayFromImage(sitk.ReadImage(folder / f"{mask}.nii.gz"))
        for mask in (f"app_{way}", f"{way}_after", way)
    )
    assert np.count_nonzero(ours != after) == 0
    assert 0 < np.count_nonzero(after) < np.count_nonzero(before)
