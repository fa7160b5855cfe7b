"""The command line as the tests call it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app import __main__ as command

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line on the CPU; gives the exit code and the lines of both streams."""

    def call(*arguments: object) -> tuple[int, list[str], list[str]]:
        code = command.main([*(str(a) for a in arguments), "--device", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


def names(folder: Path) -> list[str]:
    """Everything in the folder, hidden files too."""
    return sorted(str(f.relative_to(folder)) for f in folder.rglob("*"))
