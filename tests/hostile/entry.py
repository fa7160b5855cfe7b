"""One hostile input, what must come of it, and how the three rooms are made to take it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from app.image import read_image, write_planes
from app.model import load_model
from app.preprocess import prepare
from evaluation.scoring.assess import assess
from evaluation.states import State
from evaluation.volumes import read_grid
from tests.app.small_model import CONFIG
from tests.evaluation.challenges import FLARE24
from tests.submissions import lesion, save
from training.archive import unpacked
from training.checkpoint import load_checkpoint
from training.plans import model_config
from training.postprocessing import read_postprocessing
from volumes.errors import UserError

NIB: Any = nibabel
REFERENCE = "reference.nii.gz"  # beside a mask that is scored
CPU_S, MEMORY_MIB = 2.0, 200.0  # at most, for one input
LINE = 300  # characters, the file's own folder aside


@dataclass(frozen=True)
class Entry:
    """A file that ``make`` writes into an empty folder, and returns.

    kind: a row of the table of all of them. says: part of the one line that it is refused with;
    None: it is sound, however odd.
    """

    kind: str
    name: str
    make: Callable[[Path], Path]
    attempt: Callable[[Path], str]
    says: str | None

    @property
    def id(self) -> str:
        """The same in every run."""
        return f"{self.kind}: {self.name}"

    def wrong(self, folder: Path) -> str | None:
        """Try it in an empty folder; returns what does not hold, None if all does."""
        path = self.make(folder)
        _forget_peak()
        before_mib, before_s = _peak_mib(), time.process_time()
        line = self.attempt(path)
        took_s, took_mib = time.process_time() - before_s, _peak_mib() - before_mib
        if took_s > CPU_S:
            return f"took {took_s:.1f} s of CPU"
        if took_mib > MEMORY_MIB:
            return f"took {took_mib:.0f} MiB"
        if self.says is None:
            return f"refused: {line}" if line else None
        if not line:
            return "not refused"
        if "\n" in line or len(line.replace(str(folder), "")) > LINE:
            return f"no line of {LINE} characters: {line}"
        return None if self.says in line else f"refused otherwise: {line}"


def _peak_mib() -> float:
    """Of this process's memory, since `_forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _forget_peak() -> None:
    with suppress(OSError):  # where it may not, the peak is that of all so far
        Path("/proc/self/clear_refs").write_text("5")


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    """What makes a file of this content."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def as_scan(path: Path) -> str:
    """Read a scan, plan its way through a model, and write a mask that nibabel reads.

    Returns the line that it is refused with, or nothing.
    """
    try:
        scan = read_image(path)
        prepare([scan.voxels], scan.spacing_zyx, CONFIG, exact=False, body=False)
    except (UserError, ValueError) as error:
        return " ".join(map(str, error.args))  # a line for each series of a folder
    mask = path.with_name("mask.nii.gz")
    write_planes(mask, iter([np.ones(scan.voxels.shape, np.uint8)]), np.uint8, scan)
    image = NIB.load(mask)
    assert np.isfinite(image.affine).all()
    assert np.linalg.det(image.affine) != 0
    assert np.asarray(image.dataobj).sum() == scan.voxels.size
    return ""


def as_mask(path: Path) -> str:
    """Score a mask of the two lesions beside it; returns as `as_scan` does."""
    reference = path.with_name(REFERENCE)
    save(reference, lesion())
    state, message, accuracy = assess(path, reference, read_grid(reference), FLARE24.scoring)
    assert (state is State.OK) == (message == "" or accuracy.dsc > 0)
    return "" if state is State.OK else message


def as_model(folder: Path) -> str:
    """Load a model that was exported; returns as `as_scan` does."""
    return _refusal(lambda: load_model(folder))


def as_trained(folder: Path) -> str:
    """Read plans and dataset of a trained folder; returns as `as_scan` does."""
    return _refusal(lambda: model_config(folder, "3d_fullres", "nnUNetTrainer", (), "float32"))


def as_checkpoint(path: Path) -> str:
    """Read a checkpoint; returns as `as_scan` does."""
    return _refusal(lambda: load_checkpoint(path))


def as_postprocessing(path: Path) -> str:
    """Read what is to be done after a network; returns as `as_scan` does."""
    return _refusal(lambda: read_postprocessing(path))


def as_archive(path: Path) -> str:
    """Unpack a trained folder that was exported as a zip; returns as `as_scan` does."""

    def unpack() -> None:
        with unpacked(path) as folder:
            assert (folder / "plans.json").is_file()

    return _refusal(unpack)


def _refusal(do: Callable[[], object]) -> str:
    try:
        do()
    except UserError as error:
        return str(error)
    return ""
