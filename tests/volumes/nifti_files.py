"""NIfTI files with headers of any kind, made with nibabel's."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from volumes import nifti

Array = npt.NDArray[Any]
Fields = dict[str, Any]

NIB: Any = nib
SHAPE_XYZ = (5, 4, 3)
TYPES = ("u1", "i2", "i4", "f4", "f8", "i1", "u2", "u4", "i8", "u8")
CODES = dict(zip(TYPES, (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280), strict=True))
PARTS = {
    "quatern": ("quatern_b", "quatern_c", "quatern_d"),
    "srow": ("srow_x", "srow_y", "srow_z"),
}
FLIPPED = [[-0.8, 0, 0, 10], [0, -0.9, 0, 20], [0, 0, 2.5, 30]]
SCALED = [[1.6, 0, 0, 10], [0, 1.8, 0, 20], [0, 0, 5.0, 30]]
SKEWED = [[0.8, 0.1, 0, 10], [0, 0.9, 0, 20], [0, 0, 2.5, 30]]
OBLIQUE = [0.1, 0.2, -0.3]  # quaternion b, c, d


def scan_bytes(
    dtype: str = "i2",
    *,
    order: str = "<",
    version: int = 1,
    dim: tuple[int, ...] = (3, *SHAPE_XYZ, 1, 1, 1, 1),
    values: Array | None = None,
    **fields: Any,
) -> bytes:
    """A NIfTI file made with nibabel's header, fields as stored, and values in x, y, z order."""
    header = (NIB.Nifti1Header if version == 1 else NIB.Nifti2Header)(endianness=order)
    raw = header.structarr
    raw["dim"] = dim
    raw["datatype"] = CODES[dtype]
    raw["bitpix"] = 8 * int(dtype[1])
    raw["pixdim"] = [1, 0.8, 0.9, 2.5, 1, 0, 0, 0]
    raw["vox_offset"] = len(header.binaryblock) + 4
    raw["qform_code"] = 1
    raw["descrip"] = b"a scan"
    for name, value in fields.items():
        parts = PARTS.get(name, (name,))
        for part, item in zip(parts, value if name in PARTS else (value,), strict=True):
            raw[part] = item
    if values is None:
        count = int(np.prod([max(size, 1) for size in dim[1 : dim[0] + 1]]))
        values = np.arange(count) * 7 % 120
    stored = np.asarray(values).astype(np.dtype(order + dtype)).tobytes()
    gap = max(int(raw["vox_offset"]) - len(header.binaryblock), 0)
    return bytes(header.binaryblock) + bytes(gap) + stored


def read(data: bytes) -> tuple[nifti.Header, Array]:
    """Header and voxels as ITK has them."""
    with tempfile.NamedTemporaryFile(suffix=".nii") as file:
        Path(file.name).write_bytes(data)
        header, stored = nifti.read(Path(file.name))
    return header, nifti.as_itk(header, stored)[0]


ODD_HEADERS: dict[str, Fields] = {
    "plain": {},
    "sform only": {"qform_code": 0, "sform_code": 1, "srow": FLIPPED},
    "sform only, other spacing": {"qform_code": 0, "sform_code": 1, "srow": SCALED},
    "sform of code 2, other spacing, no qform": {"qform_code": 0, "sform_code": 2, "srow": SCALED},
    "both, different": {"sform_code": 1, "srow": SCALED, "quatern": OBLIQUE},
    "both, different, sform aligned": {"sform_code": 2, "srow": SCALED, "quatern": OBLIQUE},
    "both, sform skewed": {"sform_code": 1, "srow": SKEWED},
    "neither": {"qform_code": 0},
    "negative codes": {"qform_code": -1, "sform_code": -1},
    "oblique qform": {"quatern": OBLIQUE},
    "left-handed qform": {"pixdim": [-1, 0.8, 0.9, 2.5, 0, 0, 0, 0], "quatern": OBLIQUE},
    "pixdim[0] is 0": {"pixdim": [0, 0.8, 0.9, 2.5, 0, 0, 0, 0]},
    "negative pixdim": {"pixdim": [1, -0.8, 0.9, -2.5, 0, 0, 0, 0]},
    "zero pixdim": {"pixdim": [1, 0, 0.9, 0, 0, 0, 0, 0]},
    "pixdim not finite": {"pixdim": [1, np.nan, 0.9, np.inf, 0, 0, 0, 0]},
    "unknown unit": {"xyzt_units": 0},
    "metres": {"xyzt_units": 1, "pixdim": [1, 0.0008, 0.0009, 0.0025, 1, 0, 0, 0]},
    "millimetres and seconds": {"xyzt_units": 2 + 8},
    "microns": {"xyzt_units": 3},
    "microns and milliseconds": {"xyzt_units": 3 + 16},
    "undefined unit": {"xyzt_units": 7},
    "trailing 1": {"dim": (4, *SHAPE_XYZ, 1, 1, 1, 1)},
    "two trailing 1": {"dim": (5, *SHAPE_XYZ, 1, 1, 1, 1)},
    "trailing 0": {"dim": (4, *SHAPE_XYZ, 0, 0, 0, 0)},
    "rubbish behind the last dimension": {"dim": (3, *SHAPE_XYZ, 9, 9, -9, 9)},
    "one slice": {"dim": (3, 5, 4, 1, 1, 1, 1, 1)},
    "one slice, trailing 1": {"dim": (4, 5, 4, 1, 1, 1, 1, 1)},
    "two-dimensional": {"dim": (2, 5, 4, 1, 1, 1, 1, 1)},
    "two-dimensional, zeros behind": {"dim": (2, 5, 4, 0, 0, 0, 0, 0)},
    "wrong bitpix": {"bitpix": 3},
    "label intent": {"intent_code": 1002},
    "wrong sizeof_hdr": {"sizeof_hdr": 0},
    "voxels behind an extension": {"vox_offset": 400},
    "odd vox_offset": {"vox_offset": 352.7},
    "pair magic in one file": {"magic": b"ni1"},
}
