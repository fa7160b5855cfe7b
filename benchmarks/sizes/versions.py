"""Which versions are compared, and the app of an earlier one."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from pathlib import Path

from benchmarks.checkout import ask_git, extract
from benchmarks.programs import NNUNET, ROOT
from evaluation.errors import EvaluationError

_NNUNET_VERSIONS = (
    "from importlib.metadata import version as v; print(v('nnunetv2') + ', torch ' + v('torch'))"
)


APP = ("app", "volumes")  # the folders that the app consists of
PACKED = Path(".commit")  # what benchmarks.pack writes, as there is no repository then


def app_version() -> str:
    """The app's newest commit, where this is a checkout or packed from one, and torch's version."""
    commit = app_commit() or "of no commit"
    changed = " and changes" if ask_git("status", "--porcelain", "--", *APP) else ""
    return f"{commit}{changed}, {_torch()}"


def app_commit() -> str:
    """Its short name; empty if there is none."""
    packed = ROOT / PACKED
    return (
        packed.read_text() if packed.exists() else ask_git("log", "-1", "--format=%h", "--", *APP)
    )


def nnunet_version() -> str:
    """nnU-Net's version and its torch's."""
    command = [str(NNUNET / "python"), "-c", _NNUNET_VERSIONS]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def newest_release() -> str | None:
    """The newest tag before this commit; None if there is none, or no repository."""
    tags = ask_git("tag", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-creatordate")
    return tags.splitlines()[0] if tags else None


def previous_app(reference: str, folder: Path) -> tuple[Path, str]:
    """A folder that holds the app of a git reference, and its version in words.

    reference: also a folder that holds an app/ already. Raises EvaluationError.
    """
    given = Path(reference)
    if (given / "app" / "__main__.py").is_file():
        return given.resolve(), f"in {given}, {_torch()}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        there = ask_git("ls-tree", "--name-only", reference, *APP).split()
        extract(reference, folder, *(there or APP))
    except EvaluationError as error:
        raise EvaluationError(
            f"--previous {reference}: neither a folder with an app/ nor a git reference ({error})"
        ) from None
    commit = ask_git("rev-parse", "--short", f"{reference}^{{commit}}")
    return folder, f"{reference} ({commit}), {_torch()}"


def _torch() -> str:
    return f"torch {importlib.metadata.version('torch')}"
