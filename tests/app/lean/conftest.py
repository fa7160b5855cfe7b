"""A copy of the app for which it has been found out what can be left out of torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.app.conftest import python
from tests.nnunet_models import ROOT

Started = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Where the copy lies, and what the search said."""
    folder = tmp_path_factory.mktemp("lean")
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("left_out.json"))
    shutil.copytree(ROOT / "volumes", folder / "volumes")
    done = python("-m", "app.lean.find", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder, done.stdout


@pytest.fixture(scope="session")
def lean_app(searched: tuple[Path, str]) -> Path:
    return searched[0]


@pytest.fixture
def start() -> Started:
    """Runs a copy of the app on the CPU; gives the exit code and the lines of both streams."""

    def call(app: Path, *arguments: object, full: bool = False) -> tuple[int, list[str], list[str]]:
        given = ["-m", "app", *arguments, "--device", "cpu"]
        done = python(*given, cwd=app, FULL_IMPORT="1" if full else "")
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    return call
