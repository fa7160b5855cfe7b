"""Small submissions that behave in one way each, and the scans they are run on."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

# Starts a program that heeds Ctrl-C, which what is started in the background may have inherited
# to ignore.
HEEDING = ("env", "--default-signal=INT")
SHAPE = (24, 20, 10)  # x, y, z
AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])


@dataclass(frozen=True)
class Behaviour:
    """What predict.sh does for a case, whose mask it writes to $mask.

    make: writes the file that the script finds at $made. The case must end in `state`, with `says`
    in its message.
    """

    state: str
    script: str
    says: str = ""
    make: Callable[[Path], None] | None = None


def lesion() -> NDArray[np.uint8]:
    """A reference with two lesions, (x, y, z)."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:9, 4:9, 2:5] = 1
    mask[16:20, 12:14, 6:8] = 1
    return mask


def save(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE) -> None:
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def _truncated(path: Path) -> None:
    save(path, np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _wrong_checksum(path: Path) -> None:
    save(path, lesion())
    raw = bytearray(gzip.decompress(path.read_bytes()))
    content = bytearray(gzip.compress(bytes(raw)))
    content[-8] ^= 1
    path.write_bytes(bytes(content))


def _with_nan(path: Path) -> None:
    voxels = lesion().astype(np.float32)
    voxels[0, 0, 0] = np.nan
    save(path, voxels)


COPY = 'cp "$made" "$mask"'
BEHAVIOURS = {
    "good": Behaviour("ok", COPY, make=lambda path: save(path, lesion())),
    "exit3": Behaviour("nonzero_exit", "echo no weights; exit 3", "exit code 3: no weights"),
    "sleep": Behaviour("timeout", "echo waiting; sleep 1000", "waiting"),
    "hog": Behaviour("oom_ram", "exec tail /dev/zero", "MiB of memory"),
    "vram": Behaviour(
        "oom_vram", "echo torch.OutOfMemoryError: CUDA out of memory.; exit 1", "out of GPU memory"
    ),
    "nothing": Behaviour("no_output", "true", "no nothing.nii.gz"),
    "stranger": Behaviour("no_output", "touch outputs/other.nii.gz", "asked for: other.nii.gz"),
    "extra": Behaviour(
        "ok",
        f"{COPY}; touch outputs/other.nii.gz",
        "asked for: other.nii.gz",
        make=lambda path: save(path, lesion()),
    ),
    "link": Behaviour("no_output", 'ln -s /etc/passwd "$mask"', "not a regular file"),
    "pipe": Behaviour("no_output", 'mkfifo "$mask"', "not a regular file"),
    "shape": Behaviour(
        "bad_output", COPY, "size is", make=lambda path: save(path, lesion()[:, :, :-1])
    ),
    "spacing": Behaviour(
        "bad_output",
        COPY,
        "spacing is",
        make=lambda path: save(path, lesion(), np.diag([-0.8, -0.8, 2.0, 1.0])),
    ),
    "labels": Behaviour(
        "bad_output", COPY, "labels from 0 to 2", make=lambda path: save(path, lesion() * 2)
    ),
    "nan": Behaviour("bad_output", COPY, "not finite", make=_with_nan),
    "fraction": Behaviour(
        "bad_output", COPY, "no whole numbers", make=lambda path: save(path, lesion() * 0.5)
    ),
    "float": Behaviour(
        "ok",
        COPY,
        "holds float64 voxels, all whole numbers",
        make=lambda path: save(path, lesion().astype(np.float64)),
    ),
    "trailing": Behaviour(
        "ok",
        COPY,
        "its shape is (24, 20, 10, 1)",
        make=lambda path: save(path, lesion()[..., None]),
    ),
    "truncated": Behaviour("bad_output", COPY, "truncated", make=_truncated),
    "checksum": Behaviour("bad_output", COPY, "damaged", make=_wrong_checksum),
    "text": Behaviour("bad_output", 'echo mask > "$mask"', "shorter than a NIfTI header"),
}


def write_cases(folder: Path, names: list[str]) -> tuple[Path, Path]:
    """Write a scan and a reference for each name; return the folders of scans and of references."""
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        scan = np.where(lesion() == 1, 60, -100) + rng.normal(0, 5, SHAPE)
        save(folder / "scans" / f"{name}_0000.nii.gz", scan.astype(np.int16))
        save(folder / "labels" / f"{name}.nii.gz", lesion())
    return folder / "scans", folder / "labels"


def write_submission(folder: Path, behaviours: dict[str, Behaviour]) -> Path:
    """Write predict.sh, which acts as the behaviour that the case's name starts with."""
    lines = [
        "name=$(basename inputs/*_0000.nii.gz _0000.nii.gz)",
        "mask=outputs/$name.nii.gz",
        "case $name in",
    ]
    (folder / "masks").mkdir(parents=True)
    for name, behaviour in behaviours.items():
        made = f"masks/{name}.nii.gz"
        lines.append(f"{name}*) made={made}; {behaviour.script} ;;")
        if behaviour.make is not None:
            behaviour.make(folder / made)
    (folder / "predict.sh").write_text("\n".join([*lines, "esac", ""]))
    (folder / "Dockerfile").write_text(
        "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\n"
        "WORKDIR /workspace\nCOPY predict.sh ./\nCOPY masks/ masks/\n"
    )
    return folder
