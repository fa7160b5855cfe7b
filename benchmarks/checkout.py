"""The files of a commit, and what git says of this checkout."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

from benchmarks.programs import ROOT
from evaluation.errors import EvaluationError


def extract(reference: str, folder: Path, *paths: str, root: Path = ROOT) -> None:
    """Write the files that a commit has below ``paths`` (none: all) into a folder.

    Raises EvaluationError where there is no git, no repository at ``root``, or no such commit.
    """
    command = ["git", "-C", str(root), "archive", reference, *paths]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise EvaluationError("git is not installed: what is committed cannot be told") from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise EvaluationError(f"git archive {reference}: {said}") from None
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def ask_git(*arguments: str) -> str:
    """What git says of this checkout; nothing where there is no git or no repository."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
