"""Files damaged at random: an error of ours, or what SimpleITK or nibabel reads, or what was there.

Their readers run in a process of their own, which a bad header may end.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from tests.volumes import test_metaimage, test_nrrd
from tests.volumes.nifti_files import scan_bytes
from volumes import formats, metaimage, nifti
from volumes.errors import VolumeError

DAMAGED = 120  # files of each kind
# The voxels of the files that are named on stdin, as they are stored in memory, in hexadecimal.
ORACLE = """
import json, sys
import nibabel, SimpleITK as sitk
sitk.ProcessObject.SetGlobalWarningDisplay(False)
for line in sys.stdin:
    reader, name = json.loads(line)
    try:
        if reader == "nibabel":
            voxels = nibabel.load(name).dataobj.get_unscaled().T
        else:
            voxels = sitk.GetArrayFromImage(sitk.ReadImage(name))
        found = voxels.astype(voxels.dtype.newbyteorder("="), order="C").tobytes().hex()
    except Exception:
        found = None
    print(json.dumps(found), flush=True)
"""
VOXELS = test_nrrd.voxels()
RAW = VOXELS.tobytes()
ZLIB = zlib.compress(RAW)
NIFTI = scan_bytes(dim=(3, 6, 5, 4, 1, 1, 1, 1), values=VOXELS.ravel())
PACKED = {"CompressedData": "True", "CompressedDataSize": str(len(ZLIB))}
WHOLE = {
    "raw.mha": test_metaimage.header() + RAW,
    "zlib.mha": test_metaimage.header(**PACKED) + ZLIB,
    "detached.mhd": test_metaimage.header("voxels.raw"),
    "raw.nrrd": test_nrrd.header() + RAW,
    "gzip.nrrd": test_nrrd.header(encoding="gzip") + gzip.compress(RAW),
    "detached.nhdr": test_nrrd.header(data_file="voxels.raw"),
    "plain.nii": NIFTI,
    "gzip.nii.gz": gzip.compress(NIFTI),
}
PIECES = [b"0", b"-1", b"9" * 10, b"1e308", b"nan", b"\0" * 8, b"\xff" * 8, b" ", b"\n"]


def spoil(data: bytes, rng: random.Random) -> bytes:
    """Change up to three places, more often at the start, where a header is."""
    changed = bytearray(data)
    how = rng.randrange(6)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(min(len(changed), rng.choice((100, 400, len(changed)))))
        match how:
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2:
                del changed[at : at + rng.randrange(1, 20)]
            case 3:
                changed[at:at] = rng.randbytes(rng.randrange(1, 8))
            case 4:
                changed[at : at + 8] = rng.choice(PIECES)
            case 5:
                changed[at] = rng.choice(b"0123456789 -.=:\n(),")
        changed = changed or bytearray(data)
    return bytes(changed)


def test_damaged_at_random(tmp_path: Path) -> None:
    read: list[tuple[str, str, bytes]] = []
    refused: dict[str, list[str]] = {name: [] for name in WHOLE}
    for name, whole in WHOLE.items():
        for number in range(DAMAGED):
            path = tmp_path / f"{name}{number}" / name
            path.parent.mkdir()
            (path.parent / "voxels.raw").write_bytes(RAW)
            path.write_bytes(spoil(whole, random.Random(f"{name}{number}")))
            try:
                read.append(("sitk", str(path), formats.read(path)[1].tobytes()))
                if ".nii" in name:
                    read.append(("nibabel", str(path), nifti.read(path, strict=True)[1].tobytes()))
            except VolumeError as error:
                refused[name].append(str(error))
    for said in refused.values():
        assert 0 < len(said) < DAMAGED
        assert all("; " in line and "\n" not in line for line in said)
    asked = "".join(f"{json.dumps(one[:2])}\n" for one in read)
    done = subprocess.run(
        [sys.executable, "-c", ORACLE], input=asked, capture_output=True, text=True, check=True
    )
    for (_, name, voxels), line in zip(read, done.stdout.splitlines(), strict=True):
        assert voxels.hex() in (json.loads(line), RAW.hex()), name


@pytest.mark.parametrize("seed", range(80))
def test_any_image_goes_through_unchanged(tmp_path: Path, seed: int) -> None:
    """From SimpleITK to us, and from us to SimpleITK in the same format or another one."""
    rng = np.random.default_rng(seed)
    of, to = rng.choice(formats.SUFFIXES, 2)
    dtype = rng.choice(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
    voxels = rng.integers(0, 100, rng.integers(1, 7, 3)).astype(dtype)
    image: Any = sitk.GetImageFromArray(voxels)
    image.SetSpacing(rng.uniform(0.1, 9, 3).tolist())
    image.SetOrigin(rng.uniform(-900, 900, 3).tolist())
    turned = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    image.SetDirection(turned.ravel().tolist())
    scan, mask = tmp_path / f"scan{of}", tmp_path / f"mask{to}"
    sitk.WriteImage(image, scan, useCompression=bool(rng.integers(2)) and of != ".nii")

    header, read, strange = formats.read(scan)
    theirs: Any = sitk.ReadImage(scan)
    assert (read.dtype, strange) == (dtype, 0)
    np.testing.assert_array_equal(read, voxels)
    assert header.spacing == theirs.GetSpacing()[::-1]
    formats.write(mask, header, read.dtype, iter([read[:1], read[1:]]))
    after: Any = sitk.ReadImage(mask)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), voxels)
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        before = getattr(theirs, what)()
        exact = of == to or {of, to} == {".nii", ".nii.gz"}
        if exact:
            assert getattr(after, what)() == before, what
        assert getattr(after, what)() == pytest.approx(before, abs=1e-4), what


def hostile(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.endswith(formats.SUFFIXES))


def test_files_that_ended_other_readers(real_data: Path) -> None:
    """Headers that end ITK's process, and compressed voxels that it takes though damaged."""
    paths = [path for path in hostile(real_data / "hostile") if "score" not in path.name]
    assert len(paths) > 10
    for path in paths:
        with pytest.raises(VolumeError) as caught:
            formats.read(path)
        assert "\n" not in str(caught.value)
        if path.suffix == ".mha":
            with pytest.raises(VolumeError):
                metaimage.read(path, strict=True)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("score_quaternion_crash_mask", None),
        ("fuzz_score_198940", None),
    ],
)
def test_masks_that_ended_a_judge(real_data: Path, name: str, says: str | None) -> None:
    path = real_data / "hostile" / f"{name}.nii.gz"
    if says is None:
        assert np.isfinite(nifti.read_header(path, strict=True).grid.affine).all()
        return
    with pytest.raises(VolumeError, match=says):
        nifti.read_header(path, strict=True)
