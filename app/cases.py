"""Which files belong to one case, and where its mask goes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from app.dicom.files import is_dicom
from app.image import DICOM_SUFFIX, SUFFIXES, ImageError, suffix_of

_CHANNEL = re.compile(r"(.+)_(\d{4})", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """One scan: a file per channel, in order, or a folder of DICOM, and the mask to write."""

    name: str
    files: tuple[Path, ...]
    output: Path


def find_cases(source: Path, target: Path, channels: int) -> tuple[list[Case], list[ImageError]]:
    """The cases of a file or a folder, and an error for each file that cannot be one.

    nnU-Net's names: ``X_0000.nii.gz`` is channel 0 of case X, whose mask is ``X.nii.gz``. A model
    with one channel also takes names without the number. Where there are no such files, a folder
    that holds DICOM is a case, whose mask is ``FOLDER.nii.gz``, else each folder in it that does.
    Raises ImageError when there is nothing to do at all.
    """
    if source.is_dir():
        try:
            files = sorted(f for f in source.iterdir() if f.name.lower().endswith(SUFFIXES))
            # What is a scan by its name is read, or an error: a link that leads nowhere, for one.
            files = [f for f in files if not f.is_dir() and not f.name.startswith(".")]
            folders = [] if files else _folders_of_dicom(source)
        except OSError as error:
            raise ImageError(f"{source}: cannot be read ({error.strerror})") from None
        if folders:
            return [_case_of_folder(f, source, target, channels) for f in folders], []
        if not files:
            raise ImageError(
                f"{source}: holds no scans; expected files in {', '.join(SUFFIXES)}, or DICOM"
            )
    elif not source.exists():
        raise ImageError(f"{source}: does not exist")
    elif is_dicom(source):
        raise ImageError(f"{source}: one file of DICOM; name the folder of its series")
    else:
        files = [source]
    scans = set(map(os.path.realpath, files))
    cases: dict[Path, Case] = {}
    errors = []
    for file in files:
        try:
            case = _case(file, source, target, channels)
            if case is None:
                continue
            if os.path.realpath(case.output) in scans.union(map(os.path.realpath, case.files)):
                raise ImageError(
                    f"{file}: its mask would overwrite the scan {case.output}; write elsewhere"
                )
            if case.output in cases:
                other = cases[case.output].files[0].name
                raise ImageError(f"{file}: its mask would overwrite that of {other}; rename one")
            cases[case.output] = case
        except ImageError as error:
            errors.append(error)
    return list(cases.values()), errors


def _case(file: Path, source: Path, target: Path, channels: int) -> Case | None:
    """The case that starts with ``file``; None if the file is a later channel of another one."""
    suffix = suffix_of(file)
    stem, ending = file.name[: -len(suffix)], file.name[-len(suffix) :]  # X.NII.GZ keeps its case
    if not stem.removesuffix("_0000"):
        raise ImageError(f"{file}: has no case name before {file.name}; rename it")
    numbered = _CHANNEL.fullmatch(stem)
    files: tuple[Path, ...] = (file,)
    name = stem.removesuffix("_0000")
    if channels > 1:
        if numbered is None:
            raise ImageError(
                f"{file}: the model has {channels} channels; name the files "
                f"X_0000{ending} to X_{channels - 1:04d}{ending}"
            )
        name, number = numbered[1], int(numbered[2])
        files = tuple(file.with_name(f"{name}_{c:04d}{ending}") for c in range(channels))
        if 0 < number < channels and files[0].exists():
            return None
        missing = [f.name for f in files if not f.exists()]
        if missing or number >= channels:
            problem = f"{missing[0]} is missing" if missing else f"channel {number} is not used"
            raise ImageError(f"{file}: {problem}; the model has {channels} channels, from 0000 on")
    output = target / f"{name}{suffix}"
    if not source.is_dir() and _is_file_name(target):
        output = target
    if suffix_of(output) == DICOM_SUFFIX:
        raise ImageError(
            f"{output}: DICOM-SEG is for a scan that is a DICOM series; name the mask .nii.gz"
        )
    return Case(name, files, output)


def _folders_of_dicom(source: Path) -> list[Path]:
    """``source`` if DICOM files lie in it, else the folders in it that hold such."""
    if any(map(is_dicom, source.iterdir())):
        return [source]
    folders = (f for f in sorted(source.iterdir()) if f.is_dir() and not f.name.startswith("."))
    return [f for f in folders if any(map(is_dicom, f.iterdir()))]


def _case_of_folder(folder: Path, source: Path, target: Path, channels: int) -> Case:
    if channels > 1:
        raise ImageError(
            f"{folder}: the model has {channels} channels, and a DICOM series is one; convert them"
            " to NIfTI on one grid"
        )
    name = folder.resolve().name if folder == source else folder.name
    output = target / f"{name}.nii.gz"
    if folder == source and _is_file_name(target):
        output = target
    if output.parent.resolve() == folder.resolve():
        raise ImageError(f"{folder}: its mask would lie among the slices; write elsewhere")
    suffix_of(output)  # raises for a name of no format
    return Case(name, (folder,), output)


def _is_file_name(target: Path) -> bool:
    """Not a folder's such as masks/v1.0."""
    return target.suffix[1:].isalpha() and not target.is_dir()
