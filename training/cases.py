"""Which scans and masks a folder holds: nnU-Net's raw layout, or FLARE's.

nnU-Net: ``imagesTr/X_0000.nii.gz``, ``labelsTr/X.nii.gz`` and, if it is there, dataset.json. FLARE:
``images`` and ``labels``, or the same with Tr and a number behind it (``imagesTr2200``), and
``unlabeled…`` of scans alone; scans are X_0000.nii.gz or X.nii.gz. Of crops, the crops.json of
training.crops says which scan each is of, and which hold no lesion. No scan is opened here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.crop_record import origins
from training.errors import TrainingError
from volumes.files import STRANGERS_JSON_BYTES, read_json

SUFFIX = ".nii.gz"
OTHER_SUFFIXES = (".nii", ".mha", ".mhd", ".nrrd")
_SCAN_FOLDER = re.compile(r"images(Tr\d*)?|unlabell?ed.*", re.IGNORECASE)
_MASK_FOLDER = re.compile(r"labels(Tr\d*)?", re.IGNORECASE)
_CHANNEL = re.compile(r"(.+)_(\d{4})", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """One scan, and its mask where there is one; a healthy case needs none."""

    name: str
    scan: Path
    mask: Path | None
    healthy: bool = False
    crop_of: str | None = None  # the scan's name, where this is a part of one


@dataclass(frozen=True)
class Found:
    """What a folder holds; ``problems`` are lines for the user, one for each broken case."""

    cases: tuple[Case, ...]  # to train on: they have a mask or are healthy
    unlabelled: tuple[str, ...]
    problems: tuple[str, ...]


def find(folder: Path, healthy: Path | None = None) -> Found:
    """The cases of ``folder``; raises TrainingError where the folder itself cannot be used.

    healthy: a text file with a case's name a line, or a folder of scans, which are taken in where
    ``folder`` does not have them.
    """
    scan_folders, mask_folders = _folders(folder)
    problems: list[str] = []
    scans, masks = _scans(scan_folders, problems), _masks(mask_folders, problems)
    without_lesion = _declared_healthy(healthy, scans, problems)
    crop = origins(folder)
    without_lesion |= {name for name, origin in crop.items() if origin.healthy}
    complete = _declares_masks(folder / "dataset.json")
    cases, unlabelled = [], []
    for name, scan in sorted(scans.items()):
        origin = crop[name].scan if name in crop else None
        case = Case(name, scan, masks.get(name), name in without_lesion, origin)
        if case.mask or case.healthy:
            cases.append(case)
        elif complete:
            problems.append(
                f"{scan}: has no mask, though dataset.json says that every scan has one; "
                f"add labelsTr/{name}{SUFFIX} or remove dataset.json"
            )
        else:
            unlabelled.append(name)
    problems += [
        f"{masks[name]}: there is no scan of that name; add it or remove the mask"
        for name in sorted(masks.keys() - scans.keys())
    ]
    if not cases and not problems:
        raise TrainingError(f"{folder}: no scan there has a mask; nothing can be trained on it")
    return Found(tuple(cases), tuple(unlabelled), tuple(problems))


def _folders(folder: Path) -> tuple[list[Path], list[Path]]:
    if not folder.is_dir():
        raise TrainingError(f"{folder}: no such folder; give one with imagesTr and labelsTr")
    inside = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    scans = [entry for entry in inside if _SCAN_FOLDER.fullmatch(entry.name)]
    masks = [entry for entry in inside if _MASK_FOLDER.fullmatch(entry.name)]
    if not scans or not masks:
        names = ", ".join(entry.name for entry in inside[:8]) or "no folder"
        raise TrainingError(
            f"{folder}: holds {names}; expected imagesTr and labelsTr (nnU-Net) or images and "
            "labels (FLARE)"
        )
    return scans, masks


def _scans(folders: list[Path], problems: list[str]) -> dict[str, Path]:
    """Scans by their case's name. A number that does not count from 0000 is part of the name."""
    found: dict[str, Path] = {}
    for folder in folders:
        files = dict(_volumes(folder, problems))
        for stem, file in files.items():
            numbered = _CHANNEL.fullmatch(stem)
            if numbered and numbered[2] != "0000" and f"{numbered[1]}_0000" in files:
                problems.append(
                    f"{file}: is a second channel of {numbered[1]}; the recipes take CT alone"
                )
            else:
                _add(found, stem.removesuffix("_0000"), file, problems)
    return found


def _masks(folders: list[Path], problems: list[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        for stem, file in _volumes(folder, problems):
            _add(found, stem, file, problems)
    return found


def _add(found: dict[str, Path], name: str, file: Path, problems: list[str]) -> None:
    if name in found:
        problems.append(f"{file}: case {name} is {found[name]} already; rename or remove one")
    else:
        found[name] = file


def _declared_healthy(
    declared: Path | None, scans: dict[str, Path], problems: list[str]
) -> set[str]:
    """The names of healthy cases; scans of a folder are added to ``scans``."""
    if declared is None:
        return set()
    if declared.is_dir():
        added = _scans([declared], problems)
        for name, file in added.items():
            if name in scans and scans[name].resolve() != file.resolve():
                problems.append(f"{file}: case {name} is {scans[name]} already; rename one")
            scans.setdefault(name, file)
        return set(added)
    try:
        lines = declared.read_text().split()
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{declared}: cannot be read ({error}); give a list of names or a folder of scans"
        ) from None
    names = {line.removesuffix(SUFFIX).removesuffix("_0000") for line in lines}
    problems += [
        f"{declared}: there is no scan {name}; correct the list"
        for name in sorted(names - scans.keys())
    ]
    return names


def _volumes(folder: Path, problems: list[str]) -> Iterator[tuple[str, Path]]:
    """The files of a folder by name, without their suffix."""
    for file in sorted(folder.iterdir()):
        if file.name.startswith(".") or file.is_dir():
            continue
        if file.name.endswith(SUFFIX):
            yield file.name.removesuffix(SUFFIX), file
        elif file.name.lower().endswith(OTHER_SUFFIXES):
            problems.append(f"{file}: is not {SUFFIX}; convert it, or move it elsewhere")


def _declares_masks(file: Path) -> bool:
    """Whether nnU-Net's dataset.json is there; raises TrainingError if it is of something else."""
    if not file.exists():
        return False
    try:
        content = read_json(file, STRANGERS_JSON_BYTES)
        labels, ending = content["labels"], content.get("file_ending", SUFFIX)
        channels = content.get("channel_names") or content["modality"]
        values = sorted(labels.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{file}: is not nnU-Net's dataset.json ({error!r}); correct or remove it"
        ) from None
    if values != [0, 1] or len(channels) != 1 or ending != SUFFIX:
        raise TrainingError(
            f"{file}: has labels {labels}, channels {channels}, files {ending}; "
            f"the recipes segment one class, lesion = 1, in CT alone, from {SUFFIX}"
        )
    return True
