"""Lays out a case as a contract has it, and takes the mask out of what a submission has left.

Both are outside of what is timed.
"""

import contextlib
import errno
import fnmatch
import glob
import json
import math
import os
import shutil
import stat
import time
import uuid
from pathlib import Path

import numpy as np

from evaluation.apart import Apart, CallFailed
from evaluation.cases import Case
from evaluation.contracts import Contract
from evaluation.disk import check_disk
from evaluation.errors import EvaluationError
from evaluation.runners import InfrastructureError, short_line
from evaluation.states import State
from evaluation.volumes import Volume, naming, read
from volumes import metaimage, nifti
from volumes.errors import VolumeError
from volumes.files import replacing
from volumes.grid import Grid, grid_difference

SHOWN = 3  # names in a message
WIDEST_VOXEL, HEADER_BYTES = 16, 2**20  # of a mask
COPY_S = 600.0  # for one
CHUNK = 2**20


def stage(case: Case, work: Path, contract: Contract) -> None:
    """Make work/inputs with a copy of the scan, and work/outputs, which its container may write to.

    Raises EvaluationError when a scan that cannot be copied as it is is damaged.
    """
    inputs, outputs = work / "inputs", work / "outputs"
    inputs.mkdir()
    outputs.mkdir()
    if contract.sockets:
        _stage_sockets(case, inputs, contract)
    else:
        for scan, name in zip(case.scans, case.scan_names, strict=True):
            # A copy, not a link: what can write to inputs/ must not reach the organisers' own file.
            copy = _copy_nameless if case.alias else shutil.copyfile
            copy(scan, inputs / name)
    # None of it may depend on the umask: the image may have a user of its own.
    for path in (inputs, *inputs.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    outputs.chmod(0o777)


def _copy_nameless(scan: Path, to: Path) -> None:
    with naming(scan):
        nifti.copy_nameless(scan, to)


def _stage_sockets(case: Case, inputs: Path, contract: Contract) -> None:
    """Write each channel into its socket's folder, and inputs.json, which tells of them."""
    told = []
    for scan, socket in zip(case.scans, contract.sockets, strict=True):
        # As on the platform, the name says nothing of the case.
        path = inputs / socket / f"{uuid.uuid4()}.mha"
        path.parent.mkdir(parents=True)
        _write_metaimage(path, read(scan))
        slug = Path(socket).name
        described = {"slug": slug, "kind": "Image", "super_kind": "Image", "relative_path": socket}
        told.append({"image": {"name": path.name}, "socket": described})
    (inputs / "inputs.json").write_text(json.dumps(told, indent=2) + "\n")


def most_bytes(case: Case) -> int:
    """Return the most that a mask of this case may take: all of it in NIfTI's widest type."""
    return WIDEST_VOXEL * math.prod(case.grid.shape_zyx) + HEADER_BYTES


def collect(case: Case, outputs: Path, mask: Path, contract: Contract) -> tuple[State, str]:
    """Take the mask out of outputs/, as .nii.gz; return ok, no_output or bad_output, and one line.

    A submission may leave links or pipes where the mask should be: none is followed. What is taken
    has our owner and mode, and is on the disk before anything is said of it. Raises
    InfrastructureError where there is no room for it.
    """
    converted = contract.mask.endswith(".mha")
    taken = outputs.with_name(f"{mask.name}.mha") if converted else mask
    try:
        source, remark = _find(case, outputs, contract)
        shown = f"{source.name} in {_shown(source.parent, outputs)}"
        if not _copy(source, taken, short_line(shown), most_bytes(case)):
            return State.BAD_OUTPUT, short_line(f"{shown} is larger than any mask of its scan")
    except InfrastructureError:
        raise
    except EvaluationError as error:
        return State.NO_OUTPUT, str(error)
    if converted:
        try:
            with contextlib.closing(Apart()) as apart:
                apart.call(_convert, taken, case, mask)
        except (CallFailed, EvaluationError) as error:
            return State.BAD_OUTPUT, short_line(f"{source.name}: {error}")
        finally:
            taken.unlink()
    return State.OK, remark


def _find(case: Case, outputs: Path, contract: Contract) -> tuple[Path, str]:
    """Return the mask, whatever it is, and what else there is to say; raises EvaluationError."""
    below, _, pattern = contract.mask.rpartition("/")
    folder = outputs
    # A process, unlike a container, could replace outputs/ itself.
    for part in ("", *filter(None, below.split("/"))):
        if not os.path.lexists(folder / part):
            break
        folder /= part
        if folder.is_symlink():
            raise EvaluationError(f"{_shown(folder, outputs)} was replaced by a link")
    try:
        present = sorted(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise EvaluationError(
            f"{_shown(folder, outputs)} cannot be listed any more ({error.strerror})"
        ) from error
    found: list[str] = []
    told = case.alias or case.name
    if folder == outputs / below:
        found = fnmatch.filter(present, pattern.format(case=glob.escape(told)))
    others = [name for name in present if name not in found]
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    remark = f"not asked for: {short_line(', '.join(others[:SHOWN]))}{more}" if others else ""
    if len(found) != 1:
        name = f"{pattern.format(case=told)} in {_shown(outputs / below, outputs)}"
        said = f"{len(found)} files are {name}, expected one" if found else f"no {name}"
        raise EvaluationError(f"{said}; {remark}" if remark else said)
    return folder / found[0], remark


def _shown(folder: Path, outputs: Path) -> str:
    return f"{Path('outputs') / folder.relative_to(outputs)}/"


def _copy(source: Path, to: Path, shown: str, most: int) -> bool:
    """Copy a regular file to the disk, unless it has more bytes than `most`: then return False.

    Raises EvaluationError when it is no file, or not readable, InfrastructureError when there is no
    room or the disk is too slow.
    """
    try:
        # A pipe would block without O_NONBLOCK.
        opened = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise EvaluationError(f"{shown} is not a regular file") from error
        raise EvaluationError(f"{shown} cannot be read by this user ({error.strerror})") from error
    facts = os.fstat(opened)
    if not stat.S_ISREG(facts.st_mode):
        os.close(opened)
        raise EvaluationError(f"{shown} is not a regular file")
    with os.fdopen(opened, "rb") as file:
        if facts.st_size > most:
            return False
        check_disk(to.parent, needed_mib=facts.st_size / 2**20)
        deadline_s = time.monotonic() + COPY_S
        try:
            with replacing(to) as part, part.open("wb") as copy:
                for _ in range(0, facts.st_size, CHUNK):
                    copy.write(file.read(CHUNK))
                    if time.monotonic() > deadline_s:
                        raise InfrastructureError(f"{to}: not copied within {COPY_S:g} s")
        except OSError as error:
            raise InfrastructureError(f"{to}: cannot be written ({error.strerror})") from error
    return True


def _write_metaimage(path: Path, scan: Volume) -> None:
    """Write a scan as .mha; float64, which NIfTI's scaling gives, becomes float32."""
    voxels = scan.voxels_zyx
    if voxels.dtype == np.float64:
        voxels = voxels.astype(np.float32)
    metaimage.write(path, metaimage.header_of(scan.grid), voxels.dtype, [voxels])


def _convert(source: Path, case: Case, mask: Path) -> None:
    """Write a .mha as .nii.gz with the scan's header, so on its grid whatever that says of it.

    Raises EvaluationError when the .mha is unsound. Its grid is compared before any voxel is read,
    so a mask is never larger than its scan.
    """
    grid = Grid.of_affine(case.grid.shape_zyx, case.grid.affine)
    try:
        difference = grid_difference(grid, metaimage.read_header(source, strict=True).grid)
        if difference is not None:
            raise EvaluationError(f"not on the scan's grid: its {difference}")
        _, voxels = metaimage.read(source, strict=True)
    except VolumeError as error:
        raise EvaluationError(str(error)) from error
    nifti.write(mask, nifti.read_header(case.scans[0]), voxels.dtype, [voxels])
