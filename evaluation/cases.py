"""Which scans there are, and which reference mask belongs to each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.volumes import read_grid
from volumes.grid import Grid, ambiguity, grid_difference

SUFFIX = ".nii.gz"
CHANNEL = re.compile(r"(.+)_(\d{4})", re.DOTALL)
SHOWN = 3  # names in an error


@dataclass(frozen=True)
class Case:
    """One case: its scan, a file for each channel, and its reference mask where there is one.

    grid: of the first channel. alias: what a submission is told instead of the name; empty: that.
    """

    name: str
    scans: tuple[Path, ...]
    grid: Grid
    reference: Path | None = None
    remarks: tuple[str, ...] = ()  # what else there is to say of its files
    alias: str = ""

    @property
    def mask_name(self) -> str:
        """The file that a submission must write for this case."""
        return (self.alias or self.name) + SUFFIX

    @property
    def scan_names(self) -> tuple[str, ...]:
        """The files that a submission is given; those of an alias all have their channel."""
        if not self.alias:
            return tuple(scan.name for scan in self.scans)
        return tuple(f"{self.alias}_{i:04}{SUFFIX}" for i in range(len(self.scans)))


def find(scans: Path, labels: Path | None = None) -> list[Case]:
    """Return the cases of a folder (or of one file), by name.

    scans: holds X_0000.nii.gz (and X_0001.nii.gz, … where there are more channels) or X.nii.gz.
    labels: holds X.nii.gz for every case; files for other cases are left alone.
    Raises EvaluationError that names the file when a scan or mask is missing, cannot be read, or
    the two differ in size: all of it before anything runs.
    """
    channels = _channels([scans] if scans.is_file() else volumes_in(scans))
    references = None if labels is None else _references(labels, list(channels))
    cases = []
    for name, paths in sorted(channels.items()):
        grid = read_grid(paths[0])
        for channel in paths[1:]:
            _same_size(channel, read_grid(channel).shape_zyx, paths[0], grid)
        reference = references[name] if references else None
        remarks = []
        if differences := ambiguity(grid):
            remarks.append(
                f"{paths[0]}: its header can be read in two ways ({differences}); a mask by either"
                " is on its grid"
            )
        if reference is not None:
            of_reference = read_grid(reference)
            _same_size(reference, of_reference.shape_zyx, paths[0], grid)
            # Masks are held against the scan's grid, and scored voxel by voxel, as FLARE does.
            difference = grid_difference(grid, of_reference)
            if difference:
                remarks.append(f"{reference}: not on the scan's grid: its {difference}")
        cases.append(Case(name, tuple(paths), grid, reference, tuple(remarks)))
    return cases


def anonymised(cases: Sequence[Case]) -> list[Case]:
    """Return the cases with an alias each, case_0001 and so on in their order."""
    return [replace(case, alias=f"case_{i:04}") for i, case in enumerate(cases, start=1)]


def names(folder: Path) -> list[str]:
    """Return the names of a folder's cases by its files alone; raises EvaluationError as `find`."""
    return sorted(_channels(volumes_in(folder)))


def _same_size(path: Path, shape: tuple[int, ...], scan: Path, grid: Grid) -> None:
    if shape != grid.shape_zyx:
        raise EvaluationError(
            f"{path}: has {shape[::-1]} voxels (x, y, z), its scan {scan} has"
            f" {grid.shape_zyx[::-1]}; is it another case's?"
        )


def _channels(files: list[Path]) -> dict[str, list[Path]]:
    """Return the files of each case; numbers that do not count from 0000 are part of its name."""
    by_name = {path.name.removesuffix(SUFFIX): path for path in files}
    found: dict[str, list[Path]] = {}
    for name, path in by_name.items():
        match = CHANNEL.fullmatch(name)
        if match is None or f"{match.group(1)}_0000" not in by_name:
            found.setdefault(name, []).append(path)
        else:
            found.setdefault(match.group(1), []).append(path)
    for name, paths in found.items():
        channels = [f"{name}_{i:04}{SUFFIX}" for i in range(len(paths))]
        if len(paths) > 1 and [path.name for path in paths] != channels:
            raise EvaluationError(
                f"{paths[0].parent}: {', '.join(path.name for path in paths)}: expected"
                f" {name}{SUFFIX}, or {name}_0000{SUFFIX} and so on, not both and without a gap"
            )
    return found


def volumes_in(folder: Path, *, may_be_empty: bool = False) -> list[Path]:
    """Return a folder's .nii.gz files by name; raises EvaluationError when there are none."""
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder")
    files = sorted(
        path for path in folder.iterdir() if path.name.endswith(SUFFIX) and path.name[0] != "."
    )
    if not files and not may_be_empty:
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
