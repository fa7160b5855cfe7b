"""Masks as a submission may leave them: each costs its own case at most."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.hostile.entry import NIB, Entry, as_mask, written
from tests.hostile.scans import NO_FILES, SAID_OF
from tests.submissions import AFFINE, BEHAVIOURS, SHAPE, lesion
from tests.volumes import test_nifti

Change = Callable[[Any], None]
NAME = "mask.nii.gz"
MIB = bytes(2**20)


def masks() -> Iterator[Entry]:
    """All of them."""
    for name, behaviour in BEHAVIOURS.items():
        if behaviour.make is not None:
            says = None if behaviour.state == "ok" else behaviour.says
            yield Entry("masks", f"{name}, made", _made(behaviour.make), as_mask, says)
    for name, make in NO_FILES.items():
        yield Entry("masks", name, make(NAME), as_mask, SAID_OF.get(name, "NIfTI"))
    for name, (data, _) in test_nifti.REFUSED.items():
        packed = data if data[:2] == b"\x1f\x8b" else gzip.compress(data)
        yield Entry("masks", f"damaged, {name}", written(NAME, packed), as_mask, NAME)
    for name, (content, says) in _files().items():
        yield Entry("masks", name, written(NAME, content), as_mask, says)


def _made(make: Callable[[Path], None]) -> Callable[[Path], Path]:
    def made(folder: Path) -> Path:
        make(folder / NAME)
        return folder / NAME

    return made


def _files() -> dict[str, tuple[bytes, str | None]]:
    """Content by what is wrong with it, and how it is refused."""
    sound, off = lesion(), "not on the scan's grid: its "
    shifted, tiny = AFFINE.copy(), AFFINE.copy()
    shifted[0, 3] = 1.0
    tiny[0, 0] = 1e-30
    return {
        "whole numbers as float64": (_mask(sound.astype(np.float64)), None),
        "4 dimensions": (_mask(sound[..., None]), None),
        "7 dimensions": (_mask(sound[..., None, None, None, None]), None),
        "5 dimensions, floats": (_mask(sound[..., None, None].astype(np.float32)), None),
        "scaled to whole numbers": (_mask(sound, scl_slope=1, scl_inter=0), None),
        "as int64": (_mask(sound.astype(np.int64)), None),
        "an empty one": (_mask(sound * 0), None),
        "all lesion": (_mask(sound | 1), None),
        "a chessboard": (_mask((np.indices(SHAPE).sum(0) % 2).astype(np.uint8)), None),
        "single voxels": (_mask(_sparse()), None),
        "a quaternion that is no rotation": (_mask(sound, quatern_b=5, quatern_c=5), None),
        "no form at all": (_mask(sound, sform_code=0, qform_code=0), off + "origin"),
        "bytes behind": (_mask(sound) + b"behind", None),
        "fractions": (_mask(sound * 0.5), "no whole numbers"),
        "infinity": (_mask(np.where(sound, np.inf, 0.0)), "not finite"),
        "NaN everywhere": (_mask(sound * np.nan), "not finite"),
        "beyond every label": (_mask(sound * 1e300), "labels from 0.0 to 1e+300"),
        "negative": (_mask(-sound.astype(np.int8)), "labels from -1 to 0"),
        "another label": (_mask(sound * 7), "labels from 0 to 7"),
        "complex": (_mask(sound.astype(np.complex64)), "(complex)"),
        "2 volumes": (_mask(np.stack([sound, sound], -1)), "expected one number a voxel"),
        "vectors": (_mask(np.stack([sound] * 3, -1)[..., None, :]), "one number a voxel"),
        "a plane": (_mask(sound[..., 0]), "expected one number a voxel"),
        "turned": (_mask(sound.transpose(1, 0, 2)), off + "size"),
        "elsewhere": (_mask(sound, affine=shifted), off + "origin"),
        "thin voxels": (_mask(sound, affine=tiny), off + "spacing"),
        "spacing of NaN": (_mask(sound, pixdim=[1, np.nan, 1, 1, 0, 0, 0, 0]), "cannot measure"),
        "spacing of infinity": (_mask(sound, pixdim=[1, 1, np.inf, 1, 0, 0, 0, 0]), "cannot"),
        "spacing of 1e38": (_mask(sound, pixdim=[1, 1e38, 1, 1, 0, 0, 0, 0]), "no person's"),
        "metres": (_mask(sound, xyzt_units=1), "xyzt_units"),
        "micrometres": (_mask(sound, xyzt_units=3), "xyzt_units"),
        "slope of NaN": (_mask(sound, scl_slope=np.nan), None),
        "slope of infinity": (_mask(sound, scl_slope=np.inf), None),
        "shift by NaN": (_mask(sound, scl_slope=1, scl_inter=np.nan), "cannot be shifted"),
        "shift by 1e38": (_mask(sound, scl_slope=1, scl_inter=1e38), "labels from 9.9"),
        "voxels at -inf": (_mask(sound, vox_offset=-np.inf), "cannot start at byte -inf"),
        "voxels at inf": (_mask(sound, vox_offset=np.inf), "cannot start at byte inf"),
        "voxels at NaN": (_mask(sound, vox_offset=np.nan), "cannot start at byte nan"),
        "voxels at 0": (_mask(sound, vox_offset=0), "cannot start at byte 0"),
        "voxels at 1e9": (_mask(sound, vox_offset=1e9), "cannot start at byte 1e+09"),
        "more than there is": (_mask(np.zeros((1200, 1200, 1), np.uint8)), off + "size"),
        "gigabytes behind": (_mask(sound) + gzip.compress(MIB) * 1500, "goes on for over"),
        "members of nothing": (gzip.compress(b"") * 100_000, "over 1000 gzip members"),
        "text behind the name": (b"mask", "shorter than a NIfTI header"),
    }


def _mask(voxels: NDArray[Any], affine: NDArray[np.float64] = AFFINE, **fields: Any) -> bytes:
    """A packed NIfTI of voxels (x, y, z), with some fields as no library would write them."""
    image = NIB.Nifti1Image(voxels, affine, dtype=voxels.dtype)
    raw = bytearray(image.to_bytes())
    header = NIB.Nifti1Header(bytes(raw[:348]), check=False)
    for name, value in fields.items():
        header.structarr[name] = value
    return gzip.compress(header.binaryblock + bytes(raw[348:]), 1)


def _sparse() -> NDArray[np.uint8]:
    """Voxels that touch at corners alone, and one apart."""
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[::2, ::2, ::2] = voxels[1::2, 1::2, 1::2] = 1
    return voxels
