"""Which scans there are, and which reference mask belongs to each."""

import re
from dataclasses import dataclass
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.volumes import Header, read_header

SUFFIX = ".nii.gz"
CHANNEL = re.compile(r"(.+)_(\d{4})")
SHOWN = 3  # names in an error


@dataclass(frozen=True)
class Case:
    """One case: its scan, a file for each channel, and its reference mask where there is one.

    header: of the first channel.
    """

    name: str
    scans: tuple[Path, ...]
    header: Header
    reference: Path | None = None

    @property
    def mask_name(self) -> str:
        """The file that a submission must write for this case."""
        return self.name + SUFFIX


def find(scans: Path, labels: Path | None = None) -> list[Case]:
    """Return the cases of a folder (or of one file), by name.

    scans: holds X_0000.nii.gz (and X_0001.nii.gz, … where there are more channels) or X.nii.gz.
    labels: holds X.nii.gz for every case; files for other cases are left alone.
    Raises EvaluationError that names the file when a scan or mask is missing, cannot be read, or
    the two differ in size: all of it before anything runs.
    """
    files = [scans] if scans.is_file() else volumes_in(scans)
    channels: dict[str, list[Path]] = {}
    for path in files:
        name = path.name.removesuffix(SUFFIX)
        match = CHANNEL.fullmatch(name)
        channels.setdefault(match.group(1) if match else name, []).append(path)
    references = None if labels is None else _references(labels, list(channels))
    cases = []
    for name, paths in sorted(channels.items()):
        header = read_header(paths[0])
        reference = references[name] if references else None
        if reference is not None:
            shape = read_header(reference).shape_zyx
            if shape != header.shape_zyx:
                raise EvaluationError(
                    f"{reference}: has {shape[::-1]} voxels (x, y, z), its scan {paths[0]} has"
                    f" {header.shape_zyx[::-1]}; is it another case's?"
                )
        cases.append(Case(name, tuple(paths), header, reference))
    return cases


def volumes_in(folder: Path) -> list[Path]:
    """Return a folder's .nii.gz files by name; raises EvaluationError when there are none."""
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder")
    files = sorted(
        path for path in folder.iterdir() if path.name.endswith(SUFFIX) and path.name[0] != "."
    )
    if not files:
        raise EvaluationError(f"{folder}: holds no {SUFFIX} file")
    return files


def _references(folder: Path, names: list[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder")
    found = {name: folder / f"{name}{SUFFIX}" for name in names}
    missing = [path.name for path in found.values() if not path.is_file()]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise EvaluationError(
            f"{folder}: lacks {', '.join(missing[:SHOWN])}{more}; every scan needs its mask"
        )
    return found
