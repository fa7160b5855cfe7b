"""app.cases: which files make a case, and where its mask goes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from app.cases import find_cases
from app.image import ImageError


def touch(folder: Path, names: Iterable[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


# files of the folder, channels, {mask: files of the case}
FOLDERS: dict[str, tuple[list[str], int, dict[str, list[str]]]] = {
    "numbered": (["X_0000.nii.gz"], 1, {"X.nii.gz": ["X_0000.nii.gz"]}),
    "plain": (["X.nii.gz"], 1, {"X.nii.gz": ["X.nii.gz"]}),
    "a dot in the name": (["a.b_0000.nii"], 1, {"a.b.nii": ["a.b_0000.nii"]}),
    "other numbers are part of a name": (
        ["X_0001.nii.gz", "Y_12.nii.gz", "Z_00000.nii.gz"],
        1,
        {
            "X_0001.nii.gz": ["X_0001.nii.gz"],
            "Y_12.nii.gz": ["Y_12.nii.gz"],
            "Z_00000.nii.gz": ["Z_00000.nii.gz"],
        },
    ),
    "every format": (
        ["a.nii.gz", "b.nii", "c.mha", "d.nrrd", "e.mhd", "e.raw"],
        1,
        {n: [n] for n in ("a.nii.gz", "b.nii", "c.mha", "d.nrrd", "e.mhd")},
    ),
    "sorted": (["b.nii", "a.nii", "c.nii"], 1, {n: [n] for n in ("a.nii", "b.nii", "c.nii")}),
    "other files": (
        [".hidden.nii.gz", "._X_0000.nii.gz", "notes.txt", "X.nii.gz", "X.json"],
        1,
        {"X.nii.gz": ["X.nii.gz"]},
    ),
    "two formats": (["X.nii.gz", "X.mha"], 1, {"X.mha": ["X.mha"], "X.nii.gz": ["X.nii.gz"]}),
    "two channels": (
        ["X_0000.nii.gz", "X_0001.nii.gz", "Y_0000.mha", "Y_0001.mha"],
        2,
        {
            "X.nii.gz": ["X_0000.nii.gz", "X_0001.nii.gz"],
            "Y.mha": ["Y_0000.mha", "Y_0001.mha"],
        },
    ),
    "a number inside the name": (
        ["X_0001_0000.nii", "X_0001_0001.nii"],
        2,
        {"X_0001.nii": ["X_0001_0000.nii", "X_0001_0001.nii"]},
    ),
    "capitals": (["X_0000.NII", "X_0001.NII"], 2, {"X.nii": ["X_0000.NII", "X_0001.NII"]}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_cases_of_a_folder(name: str, tmp_path: Path) -> None:
    files, channels, expected = FOLDERS[name]
    source, target = touch(tmp_path / "in", files), tmp_path / "out"
    cases, errors = find_cases(source, target, channels)
    assert errors == []
    found = {str(c.output.relative_to(target)): [f.name for f in c.files] for c in cases}
    assert list(found.items()) == list(expected.items())
    assert all(f.parent == source for c in cases for f in c.files)
    assert not target.exists()


# files of the folder, channels, masks that can be made, (file of the error, what it says)
PROBLEMS: dict[str, tuple[list[str], int, list[str], list[tuple[str, str]]]] = {
    "no case name": (["_0000.nii.gz"], 1, [], [("_0000.nii.gz", "has no case name")]),
    "first channel missing": (
        ["X_0001.nii", "Y_0000.nii", "Y_0001.nii"],
        2,
        ["Y.nii"],
        [("X_0001.nii", "X_0000.nii is missing; the model has 2 channels, from 0000 on")],
    ),
    "last channel missing": (
        ["X_0000.nii", "X_0001.nii"],
        3,
        [],
        [("X_0000.nii", "X_0002.nii is missing")],
    ),
    "middle channel missing": (
        ["X_0000.nii", "X_0002.nii"],
        3,
        [],
        [("X_0000.nii", "X_0001.nii is missing")],
    ),
    "channel in another format": (
        ["X_0000.nii", "X_0001.mha"],
        2,
        [],
        [("X_0000.nii", "X_0001.nii is missing"), ("X_0001.mha", "X_0000.mha is missing")],
    ),
    "one channel too many": (
        ["X_0000.nii", "X_0001.nii", "X_0002.nii"],
        2,
        ["X.nii"],
        [("X_0002.nii", "channel 2 is not used")],
    ),
    "no number": (
        ["X.nii.gz"],
        2,
        [],
        [("X.nii.gz", "name the files X_0000.nii.gz to X_0001.nii.gz")],
    ),
    "same mask": (
        ["X.nii.gz", "X_0000.nii.gz", "Y.nii.gz"],
        1,
        ["X.nii.gz", "Y.nii.gz"],
        [("X_0000.nii.gz", "would overwrite that of X.nii.gz; rename one")],
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_errors_name_the_file_and_spare_the_other_cases(name: str, tmp_path: Path) -> None:
    files, channels, masks, problems = PROBLEMS[name]
    cases, errors = find_cases(touch(tmp_path / "in", files), tmp_path / "out", channels)
    assert [c.output.name for c in cases] == masks
    assert len(errors) == len(problems)
    for error, (file, message) in zip(errors, problems, strict=True):
        assert str(error).startswith(f"{tmp_path / 'in' / file}: ")
        assert message in str(error)
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("file", "output", "mask"),
    [
        ("X_0000.nii.gz", "mask.nii.gz", "mask.nii.gz"),
        ("X_0000.nii.gz", "masks", "masks/X.nii.gz"),
        ("X_0000.nii.gz", "deep/er/mask.nii", "deep/er/mask.nii"),
        ("X.mha", "masks/v1.0", "masks/v1.0/X.mha"),
        ("X.mha", "mask.nii.gz", "mask.nii.gz"),  # its own name decides the format
        ("X.nrrd", "there", "there/X.nrrd"),
        ("X.nii.gz", "there.nii.gz", "there.nii.gz/X.nii.gz"),  # a folder with an odd name
    ],
)
def test_output_of_one_file(file: str, output: str, mask: str, tmp_path: Path) -> None:
    touch(tmp_path, [file, "Y.nii.gz"])
    for folder in ("there", "there.nii.gz"):
        (tmp_path / folder).mkdir()
    (case,), errors = find_cases(tmp_path / file, tmp_path / output, 1)
    assert errors == []
    assert case.files == (tmp_path / file,)
    assert case.output == tmp_path / mask


@pytest.mark.parametrize(("file", "output"), [("X.png", "out"), ("X.nii.gz", "mask.png")])
def test_another_name_is_refused_before_anything_is_read(
    file: str, output: str, tmp_path: Path
) -> None:
    touch(tmp_path, [file])
    cases, (error,) = find_cases(tmp_path / file, tmp_path / output, 1)
    assert cases == []
    wrong = tmp_path / (file if output == "out" else output)
    assert str(error).startswith(f"{wrong}: not an image file name; expected one of .nii.gz, ")


@pytest.mark.parametrize("output", ["masks", "masks.nii.gz"])
def test_masks_of_a_folder_lie_in_a_folder(output: str, tmp_path: Path) -> None:
    source = touch(tmp_path / "in", ["X.nii.gz"])
    (case,), _ = find_cases(source, tmp_path / output, 1)
    assert case.output == tmp_path / output / "X.nii.gz"


def test_one_file_of_several_channels_brings_the_others(tmp_path: Path) -> None:
    touch(tmp_path, ["X_0000.nii", "X_0001.nii", "Y_0000.nii"])
    (case,), errors = find_cases(tmp_path / "X_0000.nii", tmp_path / "mask.nii", 2)
    assert errors == []
    assert [f.name for f in case.files] == ["X_0000.nii", "X_0001.nii"]
    assert case.output == tmp_path / "mask.nii"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("empty", "empty: holds no scans; expected files in .nii.gz, .nii, .mha"),
        ("hidden", "hidden: holds no scans"),
        ("named", "named: holds no scans"),
        ("missing", "missing: does not exist"),
        ("missing.nii.gz", "missing.nii.gz: does not exist"),
    ],
)
def test_nothing_to_do(source: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path / "empty", ["notes.txt"])
    touch(tmp_path / "hidden", [".X.nii.gz"])
    touch(tmp_path / "named" / "X.nii.gz", ["a folder named like a scan"])
    with pytest.raises(ImageError, match=message):
        find_cases(tmp_path / source, tmp_path / "out", 1)


@pytest.mark.parametrize("name", ["X.NII.GZ", "X_0000.Nii.Gz"])
def test_the_case_of_a_suffix_does_not_matter(name: str, tmp_path: Path) -> None:
    source = touch(tmp_path / "in", [name])
    for given in (source, source / name):
        (case,), errors = find_cases(given, tmp_path / "out", 1)
        assert errors == []
        assert case.files == (source / name,)
        assert case.output == tmp_path / "out" / "X.nii.gz"
    (case,), _ = find_cases(source / name, tmp_path / "mask.NII", 1)
    assert case.output == tmp_path / "mask.NII"


@pytest.mark.parametrize("output", ["in", "in/X.nii.gz", "other/../in", "link"])
def test_a_mask_never_replaces_its_scan(output: str, tmp_path: Path) -> None:
    source = touch(tmp_path / "in", ["X.nii.gz", "Y_0000.nii.gz"])
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(source)
    given = source / "X.nii.gz" if output.endswith(".gz") else source
    cases, (error,) = find_cases(given, tmp_path / output, 1)
    assert str(error).startswith(f"{source / 'X.nii.gz'}: its mask would overwrite the scan")
    assert [c.name for c in cases] == ([] if given != source else ["Y"])


def test_a_mask_never_replaces_another_scan(tmp_path: Path) -> None:
    source = touch(tmp_path, ["X.nii.gz", "X_0000.nii.gz"])
    cases, errors = find_cases(source, source, 1)
    assert cases == []
    assert [str(e).count("would overwrite the scan") for e in errors] == [1, 1]
