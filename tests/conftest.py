"""Fixtures that several rooms share, and what a skipped test means.

Environment: ``FLARE_TEST_DATA`` is a folder of real scans (default: ../shared/data beside the
repository); ``FORBID_SKIP=1`` makes a skipped test fail, whatever it lacks, except a GPU or a CPU
with bfloat16.
"""

from __future__ import annotations

import os

# As the app sets it, and before anything imports torch: threads that spin while they wait make a
# test up to twenty times slower where another program takes one of two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests import engine, no_gpu

NO_GPU = "no GPU"
NEVER_FORBIDDEN = (NO_GPU, "no bfloat16")  # what the reason of such a skip starts with
# Tests with one of these markers count as slow, too.
EXPENSIVE = ("alone", "engine", "oracle", "slurm")
FORBID_SKIP = os.environ.get("FORBID_SKIP") == "1"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not (FORBID_SKIP and report.skipped) or hasattr(report, "wasxfail"):
        return
    # pytest puts (file, line, "Skipped: reason") there.
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(NEVER_FORBIDDEN):
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped and FORBID_SKIP=1 is set: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cuda", action="store_true", help="run the tests of the GPU, and only those")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--cuda"):
        hidden = tempfile.TemporaryDirectory(prefix="no-gpu-")
        config.add_cleanup(hidden.cleanup)
        os.environ.update(no_gpu.environment(Path(hidden.name)))


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--cuda"):
        items[:] = [item for item in items if item.get_closest_marker("cuda")]
    for item in items:
        if any(map(item.get_closest_marker, EXPENSIVE)):
            item.add_marker(pytest.mark.slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda"):
        if not item.config.getoption("--cuda"):
            pytest.skip(f"{NO_GPU} is looked for without --cuda")
        if not cuda_answers():
            pytest.fail(f"--cuda: {NO_GPU} that torch can use")
    if item.get_closest_marker("engine") and not engine.answers():
        pytest.skip("no Docker engine answers")
    if item.get_closest_marker("slurm") and not slurm_answers():
        pytest.skip("no Slurm answers")


@functools.cache
def cuda_answers() -> bool:
    """Whether torch has a GPU to run on. Asked once a session."""
    import torch

    return torch.cuda.is_available()


@functools.cache
def slurm_answers() -> bool:
    """Whether there is a Slurm to submit to. Asked once a session."""
    if shutil.which("sinfo") is None:
        return False
    return subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans: ct/, sts/, nnunet_models/. Skips where there is none."""
    folder = Path(os.environ.get("FLARE_TEST_DATA", engine.ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder} (FLARE_TEST_DATA names another place)")
    return folder


@pytest.fixture(scope="session")
def synthetic_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CT-like .nii.gz of 64x56x40 voxels: soft tissue in air, noise, an oblique affine."""
    shape = (64, 56, 40)
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    inside = (grid**2).sum(0) < 0.8
    voxels = np.where(inside, 50.0, -1000.0) + rng.normal(0, 15, shape)
    tilt = np.deg2rad(10)
    rotation = np.array(
        [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-1.5, -1.5, 3.0])
    affine[:3, 3] = (40.0, 30.0, -200.0)
    path = tmp_path_factory.mktemp("synthetic") / "synthetic_0000.nii.gz"
    scan = nibabel.Nifti1Image(voxels.astype(np.int16), affine)
    nibabel.save(scan, path)
    return path


@pytest.fixture(scope="session")
def image() -> Iterator[engine.Image]:
    """The product's image, built once a session and removed at its end. For ``engine`` tests."""
    if not engine.answers():
        pytest.skip("no Docker engine answers")
    built = engine.build_image()
    yield built
    engine.remove_image(built)
