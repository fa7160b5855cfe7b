"""Wheels for another Python on linux x86_64, by pip from the index that it is set up for."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from evaluation.errors import EvaluationError

_TAGS = ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "2010", "1")  # of manylinux
# Of these there may be no wheel: they are pure Python, and one is made here.
_SOURCE_ONLY = {"acvl-utils", "batchgenerators", "batchgeneratorsv2", "nnunetv2"} | {
    "dynamic-network-architectures"
}
_LEFT_OUT = {"tests", "test", "__pycache__"}


def fetch(requirements: Sequence[str], python: str, folder: Path) -> list[Path]:
    """The wheels of pinned requirements, into `folder`; raises EvaluationError with pip's reason.

    python: a version such as 3.12.
    """
    folder.mkdir(parents=True)
    pure = [r for r in requirements if r.partition("==")[0] in _SOURCE_ONLY]
    wheels = [r for r in requirements if r not in pure]
    if wheels:
        platforms = [f"--platform=manylinux{tag}_x86_64" for tag in _TAGS]
        version = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
        where = f" for Python {python} on linux x86_64"
        _pip(["download", *version, *platforms, f"--dest={folder}", *wheels], where)
    if pure:
        _pip(["wheel", f"--wheel-dir={folder}", *pure], "")
    found = sorted(folder.glob("*.whl"))
    for wheel in found:
        if wheel.name.endswith("-linux_x86_64.whl"):
            raise EvaluationError(f"{wheel.name}: made for this machine's Python, not for {python}")
    return found


def unpack(wheel: Path, folder: Path) -> None:
    """What importing needs of a wheel, as an installer would lay it out: no tests, no scripts."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            inside = None if member.is_dir() else place(member.filename)
            if inside is None:
                continue
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(member))


def place(name: str) -> PurePosixPath | None:
    """Where a wheel's file goes below site-packages; None: nowhere."""
    path = PurePosixPath(name)
    if path.parts[0].endswith(".data"):
        if path.parts[1] not in ("purelib", "platlib"):
            return None
        path = PurePosixPath(*path.parts[2:])
    return None if path.is_absolute() or {"..", *_LEFT_OUT} & set(path.parts) else path


def _pip(arguments: list[str], where: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    command += ["--no-deps", "--quiet", "--disable-pip-version-check", "--retries=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EvaluationError(reason(done.stderr, done.returncode) + where)


def reason(said: str, exit_code: int) -> str:
    """Return pip's last error line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [f"pip exited with {exit_code}"])[-1].removeprefix("ERROR: ")
