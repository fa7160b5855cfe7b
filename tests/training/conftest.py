"""Fixtures of the exporter's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.trained_folder import write_trained


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    write_trained(tmp_path / "trained")
    return tmp_path / "trained"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where the model goes: in a folder of its own, to see what else is left there."""
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights" / "model"
