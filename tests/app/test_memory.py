"""Memory beyond the scan's own voxels does not depend on how many slices the scan has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.conftest import python
from tests.app.small_model import write_model
from tests.nnunet_models import smooth_noise, write_scan

pytestmark = pytest.mark.slow

SHORT, LONG = 300, 1500

# Peak resident memory of a process that segments a scan of so many slices, less the voxels, in
# MiB. The voxels are made in place, as a reader would have to hold them in any case.
PROBE = """
import dataclasses, resource, sys
from pathlib import Path
import numpy as np, torch
from app.image import read_image
from app.listener import SILENT
from app.model import load_model
from app.predict import Options, Predictor
from volumes.nifti import Header

small, model, output, slices = *(Path(a) for a in sys.argv[1:4]), int(sys.argv[4])
torch.set_num_threads(1)
image = read_image(small)
fields = image.header.fields.copy()
fields["dim"][3] = slices
voxels = np.empty((slices, 512, 512), np.int16)
for i in range(slices):
    voxels[i] = np.roll(image.voxels[i % len(image.voxels)], 7 * i, 0)
scan = dataclasses.replace(image, voxels=voxels, header=Header(fields, "<"))
options = Options(torch.device("cpu"), step_size=1.0)
Predictor(load_model(model), options).write([scan], output, SILENT, None)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print((peak - voxels.nbytes) / 2**20)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: masks as ragged as can be."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_model(folder, spacing=(3.0, 3.0, 3.0), patch_size=(32, 64, 64))


def peak_mib(slices: int, model: Path, folder: Path) -> float:
    small = write_scan(folder / "small.nii.gz", smooth_noise((8, 512, 512), 0), (1.0, 0.8, 0.8))
    output = folder / f"{slices}.nii.gz"
    done = python("-c", PROBE, small, model, output, slices)
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 1000 * slices  # not a mask of background alone
    return float(done.stdout)


def test_five_times_the_slices_take_the_same_memory(model: Path, tmp_path: Path) -> None:
    short, long = (peak_mib(n, model, tmp_path) for n in (SHORT, LONG))
    assert long < 1.1 * short, (short, long)
