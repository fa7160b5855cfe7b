"""A copy of a scan has its voxels and its grid, and nothing that says whose it is."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.volumes.nifti_files import NIB, OBLIQUE, Fields, scan_bytes
from volumes import nifti

NAME = b"patient_17"
TEXTS: Fields = {"descrip": NAME, "aux_file": NAME, "intent_name": NAME}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("version", "texts"), [(1, {"db_name": NAME}), (2, {"unused_str": NAME})], ids=["1", "2"]
)
def test_no_text_of_a_scan_is_copied(
    tmp_path: Path, version: int, texts: Fields, order: str
) -> None:
    start = 348 + 4 + 64 if version == 1 else 540 + 4 + 64
    plain = scan_bytes(
        order=order,
        version=version,
        vox_offset=start,
        quatern=OBLIQUE,
        scl_slope=2.0,
        scl_inter=-7.0,
        **(TEXTS | texts),
    )
    extension = NAME.ljust(56, b"\0")
    plain = plain[: start - 64] + (64).to_bytes(8, "little") + extension + plain[start:] + NAME
    scan, copy = tmp_path / "patient_17.nii.gz", tmp_path / "case_0001.nii.gz"
    with gzip.GzipFile("patient_17.nii", "wb", fileobj=scan.open("wb")) as file:
        file.write(plain)
    assert plain.count(NAME) == 6
    assert NAME in scan.read_bytes()  # which gzip keeps beside the content
    nifti.copy_nameless(scan, copy)
    assert NAME not in copy.read_bytes()
    assert NAME not in gzip.decompress(copy.read_bytes())
    before, after = NIB.load(scan), NIB.load(copy)
    assert np.array_equal(after.get_fdata(), before.get_fdata())
    assert np.array_equal(after.affine, before.affine)
    kept = set(before.header) - {*TEXTS, *texts, "vox_offset", "regular", "data_type"}
    for field in kept:
        assert str(after.header[field]) == str(before.header[field]), field


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8"])
def test_voxels_keep_their_type(tmp_path: Path, dtype: str) -> None:
    scan, copy = tmp_path / "scan.nii", tmp_path / "copy.nii.gz"
    scan.write_bytes(scan_bytes(dtype))
    nifti.copy_nameless(scan, copy)
    assert NIB.load(copy).get_data_dtype() == np.dtype(dtype)
    assert gzip.decompress(copy.read_bytes())[352:] == scan.read_bytes()[352:]
