"""What the guard of a refactoring sees, in files written by hand."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.same.differences import folders_differ


def page(made: str, dsc: float, log: str) -> str:
    overview = {"made": made, "version": made, "teams": [{"dsc": dsc}]}
    packed = base64.b64encode(gzip.compress(json.dumps({"logs": log}).encode())).decode()
    return (
        f'<script type="application/json" id="overview">{json.dumps(overview)}</script>\n'
        f'<script type="text/plain" id="team-0">{packed}</script>'
    )


def mask(folder: Path, voxel: int, spacing: float) -> None:
    voxels = np.zeros((2, 3, 4), np.uint8)
    voxels[0, 0, 0] = voxel
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1.0, 1.0, spacing))
    sitk.WriteImage(image, folder / "a.nii.gz")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The same in other words: a figure is written otherwise, a page was made at another time."""
    for name, figure, made in (("before", "0.50", "1"), ("now", "0.5", "2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "scores.csv").write_text(f"case,dsc,time_s\na,{figure},3\n")
        (folder / "tables.md").write_text("| a | 0.5 |\n")
        (folder / "report.html").write_text(page(made, 0.5, "said"))
        mask(folder, 1, 2.0)
    return tmp_path / "before", tmp_path / "now"


def test_what_is_the_same(folders: tuple[Path, Path]) -> None:
    assert list(folders_differ(*folders)) == []


CHANGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "figure": (
        lambda f: (f / "scores.csv").write_text("case,dsc,time_s\na,0.51,3\n"),
        "scores.csv.dsc[0]: '0.50' -> '0.51'",
    ),
    "column": (
        lambda f: (f / "scores.csv").write_text("case,dsc\na,0.5\n"),
        "scores.csv.time_s: \"['3']\" -> 'missing'",
    ),
    "line": (lambda f: (f / "tables.md").write_text("| a | 0.6 |\n"), "tables.md[0]: '| a | 0.5"),
    "file": (lambda f: (f / "tables.md").unlink(), "*.md: \"['tables.md']\" -> '[]'"),
    "overview": (
        lambda f: (f / "report.html").write_text(page("3", 0.25, "said")),
        "report.html.overview.teams[0].dsc: '0.5' -> '0.25'",
    ),
    "details": (
        lambda f: (f / "report.html").write_text(page("3", 0.5, "else")),
        "report.html.team-0.logs: 'said' -> 'else'",
    ),
    "voxel": (lambda f: mask(f, 0, 2.0), "a.nii.gz.voxels: 1 differ"),
    "grid": (lambda f: mask(f, 1, 2.5), "a.nii.gz.Spacing: '(1.0, 1.0, 2.0)' -> '(1.0, 1.0, 2.5)'"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_differs_is_named(name: str, folders: tuple[Path, Path]) -> None:
    change, expected = CHANGES[name]
    change(folders[1])
    (found,) = folders_differ(*folders)
    assert found.startswith(expected)


def test_only_some_files(folders: tuple[Path, Path]) -> None:
    (folders[1] / "tables.md").unlink()
    assert list(folders_differ(*folders, "*.csv")) == []
