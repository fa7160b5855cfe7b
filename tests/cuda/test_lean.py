"""A GPU's masks with what can be left out of torch: bit for bit those with all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from examples.samples import fetch
from tests.engine import ROOT

pytestmark = pytest.mark.cuda

OPTIONS: dict[str, list[str]] = {
    "default": [],
    "mirrored": ["--tta"],
    "little memory": ["--vram-budget", "1100"],
    "a deadline that is far": ["--time-budget", "1000"],
}


@pytest.fixture(scope="module")
def lean_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the app for which it was found out on this GPU what can be left out."""
    folder = tmp_path_factory.mktemp("lean")
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("left_out.json"))
    shutil.copytree(ROOT / "volumes", folder / "volumes")
    command = [sys.executable, "-m", "app.lean.find"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.mark.parametrize("name", OPTIONS)
def test_masks_are_the_same_and_nothing_is_missed(
    name: str, lean_app: Path, tmp_path: Path
) -> None:
    scan = fetch(ROOT / "runs" / "samples", names=["lung1"])[0].scan
    model = ROOT / "weights" / "cpu-small"
    masks = []
    for full in ("", "1"):
        mask = tmp_path / f"full{full}.nii.gz"
        command = ["-m", "app", "--model", model, "--input", scan, "--output", mask]
        done = subprocess.run(
            [sys.executable, *map(str, command), "--device", "cuda", *OPTIONS[name]],
            cwd=lean_app,
            env={**os.environ, "FULL_IMPORT": full},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "beginning anew" not in done.stderr
        masks.append(mask.read_bytes())
    assert masks[0] == masks[1]
