"""What all comparisons with nnU-Net's own masks share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from app.__main__ import main
from tests.nnunet_models import ORACLE_PYTHON

TORCH = "resample_torch_fornnunet"  # nnU-Net's name of the other resampling
NEEDS_ORACLE = [
    pytest.mark.oracle,
    pytest.mark.skipif(not ORACLE_PYTHON.exists(), reason="no nnU-Net: run `make oracle`"),
]


def voxels(file: Path) -> NDArray[Any]:
    """A file's voxels (z, y, x), as ITK reads them."""
    array: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(file))
    return array


def segment(scan: Path, folder: Path, mask: str, *options: str) -> NDArray[Any]:
    """Segment a scan from the command line with the model in folder/model; returns the mask."""
    arguments = ["--input", scan, "--output", folder / mask]
    arguments += ["--model", folder / "model", "--device", "cpu", *options]
    assert main([str(a) for a in arguments]) == 0
    return voxels(folder / mask)
