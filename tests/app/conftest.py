"""The command line as the tests call it, and what it is given."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from app import __main__ as command
from app.loading import cpu_has_bfloat16
from tests.app.small_model import write_model
from tests.nnunet_models import ROOT, smooth_noise, write_scan

Run = Callable[..., tuple[int, list[str], list[str]]]
SHAPE, SPACING = (10, 24, 22), (4.0, 1.2, 1.3)
NEEDS_BFLOAT16 = pytest.mark.skipif(not cpu_has_bfloat16(), reason="no bfloat16 in this CPU")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line on the CPU; gives the exit code and the lines of both streams."""

    def call(
        model: Path | str | None, source: Path, output: Path, *options: object
    ) -> tuple[int, list[str], list[str]]:
        named = [] if model is None else ["--model", model]
        arguments = [*named, "--input", source, "--output", output, "--device", "cpu", *options]
        code = command.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that no test changes."""
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """torch sums a norm over channels that lie together by threads: one alone rounds more."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def scan(file: Path, seed: int = 0, spacing: tuple[float, float, float] = SPACING) -> Path:
    """Write a scan of SHAPE in a folder that may be new."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return write_scan(file, smooth_noise(SHAPE, seed), spacing)


def mask(file: Path) -> NDArray[Any]:
    """The labels (z, y, x) of a mask, by another reader."""
    labels: NDArray[Any] = sitk.GetArrayFromImage(sitk.ReadImage(file))
    return labels


def names(folder: Path) -> list[str]:
    """Everything in the folder, hidden files too."""
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*"))


def python(
    *arguments: object, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
