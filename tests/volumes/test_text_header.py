"""Headers whose voxels are in a file of their own: what they may name, and what is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.volumes import test_metaimage, test_nrrd
from volumes import metaimage, nrrd
from volumes.errors import VolumeError

VOXELS = test_nrrd.voxels("u1")
Kind = tuple[Any, str, str, Callable[[str], bytes]]
KINDS: dict[str, Kind] = {
    ".mhd": (
        metaimage,
        ".zraw",
        "ElementDataFile = ",
        lambda data: test_metaimage.header(data, ElementType="MET_UCHAR"),
    ),
    ".nhdr": (
        nrrd,
        ".raw.gz",
        "data file: ",
        lambda data: test_nrrd.header(type="uchar", data_file=data),
    ),
}


@pytest.fixture(params=KINDS)
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{folder}/a.raw", "not a file in the header's folder; "),
        ("../a.raw", "not a file in the header's folder; "),
        ("sub/../../a.raw", "not a file in the header's folder; "),
        ("..", "not a file in the header's folder; "),
        ("LIST", "voxels in several files; "),
        ("a%d.raw 1 4 1", "voxels in several files; "),
        ("absent.raw", "no such file; "),
        ("sub", "not a regular file; "),
        ("pipe.raw", "not a regular file; "),
        ("short.raw", "truncated, the header promises 120 bytes"),
    ],
)
def test_what_may_not_be_named(tmp_path: Path, suffix: str, name: str, says: str) -> None:
    module, _, _, head = KINDS[suffix]
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    os.mkfifo(folder / "pipe.raw")
    (folder / "short.raw").write_bytes(bytes(119))
    (tmp_path / "a.raw").write_bytes(bytes(120))
    named = name.format(folder=tmp_path)
    (folder / f"a{suffix}").write_bytes(head(named))
    with pytest.raises(VolumeError) as caught:
        module.read(folder / f"a{suffix}")
    assert str(caught.value).startswith(f"{named}: {says}")


def test_voxels_may_lie_in_a_folder_below(tmp_path: Path, suffix: str) -> None:
    module, _, _, head = KINDS[suffix]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / f"a{suffix}").write_bytes(head("sub/a.raw"))
    np.testing.assert_array_equal(module.read(tmp_path / f"a{suffix}")[1], VOXELS)


def test_a_mask_leaves_the_voxels_of_scans_alone(tmp_path: Path, suffix: str) -> None:
    """The scan case_0000 keeps its voxels under the very name that the mask's would have."""
    module, ending, names, head = KINDS[suffix]
    scan, mask, data = (tmp_path / f"case{end}" for end in (f"_0000{suffix}", suffix, ending))
    scan.write_bytes(head(data.name))
    data.write_bytes(VOXELS.tobytes())
    header, voxels = module.read(scan)
    for value in (1, 2):  # and so again, in place of the first
        module.write(mask, header, np.dtype("u1"), [voxels * 0 + value])
        assert f"{names}case-mask{ending}" in mask.read_text()
        assert (module.read(mask)[1] == value).all()
        np.testing.assert_array_equal(module.read(scan)[1], VOXELS)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_mask_replaces_its_own_voxels(tmp_path: Path, suffix: str) -> None:
    module, ending, _, head = KINDS[suffix]
    path = tmp_path / f"case{suffix}"
    (tmp_path / "a.raw").write_bytes(VOXELS.tobytes())
    path.write_bytes(head("a.raw"))
    header = module.read_header(path)
    path.unlink()
    for value in (1, 2):
        module.write(path, header, np.dtype("u1"), [VOXELS * 0 + value])
        assert (module.read(path)[1] == value).all()
    assert {file.name for file in tmp_path.iterdir()} == {"a.raw", path.name, f"case{ending}"}
