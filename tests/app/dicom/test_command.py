"""python -m app with DICOM: a folder in, the mask that its NIfTI has out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from app import load
from app.image import read_image
from app.model_rules import READERS
from tests.app.conftest import Run, mask, names, python, scan
from tests.app.dicom.made import OBLIQUE, SERIES, SPACING, Array, save, slices
from tests.app.small_model import with_channels, write_model
from tests.nnunet_models import smooth_noise

EXPECTED = "expected files in .nii.gz, .nii, .mha, .mhd, .nrrd, .nhdr, or DICOM"


def noise(seed: int = 0) -> Array:
    """A scan in which the random model finds something, of twelve bits."""
    values: Array = smooth_noise((10, 24, 22), seed)
    return values.clip(-1024, 3071).astype(np.int16)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("geometry", [{}, {"axes": OBLIQUE}, {"step": (0.0, 0.0, -4.0)}])
def test_the_mask_is_that_of_the_nifti_that_itk_makes(
    geometry: dict[str, Any], reader: str, tmp_path: Path, run: Run
) -> None:
    model = write_model(tmp_path / "model", reader=reader)
    folder = save(tmp_path / "X", slices(noise(), SPACING, **geometry), seed=1)
    itk = sitk.ImageSeriesReader()
    itk.SetFileNames(itk.GetGDCMSeriesFileNames(str(folder)))
    sitk.WriteImage(itk.Execute(), tmp_path / "itk.nii.gz")
    assert run(model, tmp_path / "itk.nii.gz", tmp_path / "expected.nii.gz")[0] == 0
    code, out, err = run(model, folder, tmp_path / "out")
    assert (code, err) == (0, [])
    assert out[1].startswith("X: read ")
    assert names(tmp_path / "out") == ["X.nii.gz"]
    expected, found = (sitk.ReadImage(tmp_path / f) for f in ("expected.nii.gz", "out/X.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected))
    assert 0 < sitk.GetArrayFromImage(found).mean() < 1
    for of in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
        assert of(found) == pytest.approx(of(expected), abs=1e-4)
    assert run(model, folder, tmp_path / "mask.dcm")[0] == 0
    source = [dcmread(f).SOPInstanceUID for f in read_image(folder).slices]
    frames = highdicom.seg.segread(tmp_path / "mask.dcm").get_pixels_by_source_instance(source)
    assert np.array_equal(frames[..., 0], sitk.GetArrayFromImage(expected))


def test_from_python_and_skipped_when_it_is_there(model: Path, tmp_path: Path, run: Run) -> None:
    folder = save(tmp_path / "X", slices(noise(), SPACING))
    target = tmp_path / "mask.nii.gz"
    assert run(model, folder, target)[0] == 0
    found = load(model, "cpu").predict(folder, series=SERIES)
    found.write(tmp_path / "api.nii.gz")
    assert (tmp_path / "api.nii.gz").read_bytes() == target.read_bytes()
    code, out, err = run(model, folder, target, "--skip-existing")
    assert (code, out, err) == (0, [f"X: done before -> {target}"], [])
    save(folder, slices(noise(), (5.0, *SPACING[1:])))
    assert len(run(model, folder, target, "--skip-existing")[1]) == 2


def test_folders_of_a_folder_are_cases(model: Path, tmp_path: Path, run: Run) -> None:
    for number, name in enumerate("ab"):
        save(tmp_path / "in" / name, slices(noise(number), SPACING))
    (tmp_path / "in" / "notes").mkdir()
    (tmp_path / "in" / "b" / "IM0003.dcm").write_text("")
    code, out, err = run(model, tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert [line.partition(":")[0] for line in out] == ["model tiny", "a"]
    (line,) = err
    assert line.startswith(
        f"error: {tmp_path / 'in' / 'b' / 'IM0003.dcm'}: is called .dcm, without"
    )
    assert names(tmp_path / "out") == ["a.nii.gz"]


def test_several_series_are_a_line_each_and_one_is_chosen(
    model: Path, tmp_path: Path, run: Run
) -> None:
    made, other = slices(noise(), SPACING), slices(noise(1), SPACING)
    for one in other:
        one.SeriesInstanceUID = f"{SERIES}.2"
    folder = save(tmp_path / "in", [*made, *other])
    code, _, err = run(model, folder, tmp_path / "out")
    assert code == 1
    assert err == [
        f'error: {folder}: holds series {uid}, "Thorax 5.0", 10 slices; choose with --series UID'
        for uid in (SERIES, f"{SERIES}.2")
    ]
    assert run(model, folder, tmp_path / "mask.nii.gz", "--series", f"{SERIES}.2")[0] == 0
    alone = save(tmp_path / "alone", other)
    assert run(model, alone, tmp_path / "expected.nii.gz")[0] == 0
    assert np.array_equal(mask(tmp_path / "mask.nii.gz"), mask(tmp_path / "expected.nii.gz"))


def test_scans_go_before_folders(model: Path, tmp_path: Path, run: Run) -> None:
    scan(tmp_path / "in" / "X.nii.gz")
    save(tmp_path / "in" / "a", slices(noise(), SPACING))
    assert run(model, tmp_path / "in", tmp_path / "out")[0] == 0
    assert names(tmp_path / "out") == ["X.nii.gz"]


def test_what_goes_with_no_dicom_series(model: Path, tmp_path: Path, run: Run) -> None:
    nifti = scan(tmp_path / "X.nii.gz")
    code, _, err = run(model, nifti, tmp_path / "mask.dcm")
    assert code == 1
    assert err == [
        f"error: {tmp_path / 'mask.dcm'}: DICOM-SEG is for a scan that is a DICOM series; name the"
        " mask .nii.gz"
    ]
    assert not (tmp_path / "mask.dcm").exists()
    code, _, err = run(model, nifti, tmp_path / "mask.nii.gz", "--series", "1.2")
    assert code == 1
    assert err == [f"error: {nifti}: a file has no series to choose from; leave out --series"]


def test_a_model_of_two_channels_wants_files(tmp_path: Path, run: Run) -> None:
    config = with_channels(2)
    fields = ("channels", "normalization", "network")
    folder = write_model(tmp_path / "two", **{name: getattr(config, name) for name in fields})
    source = save(tmp_path / "in", slices(noise(), SPACING))
    code, _, err = run(folder, source, tmp_path / "out")
    assert code == 1
    assert err == [
        f"error: {source}: the model has 2 channels, and a DICOM series is one; convert them to"
        " NIfTI on one grid"
    ]


def test_a_series_is_named_by_its_folder_and_keeps_its_slices(
    model: Path, tmp_path: Path, run: Run
) -> None:
    folder = save(tmp_path / "in", slices(noise(), SPACING))
    before = {file: file.read_bytes() for file in folder.iterdir()}
    for source, target, message in (
        (folder / "IM0000.dcm", tmp_path / "out", "one file of DICOM; name the folder of its"),
        (folder, folder, "its mask would lie among the slices; write elsewhere"),
        (folder, folder / "IM0000.dcm", "its mask would lie among the slices; write elsewhere"),
        (tmp_path / "none.dcm", tmp_path / "out", "does not exist"),
    ):
        code, _, (line,) = run(model, source, target)
        assert code == 1
        assert line.startswith(f"error: {source}: {message}")
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    copied = tmp_path / "copied" / "._IM0000.dcm"  # what macOS leaves beside a file
    copied.parent.mkdir()
    copied.write_bytes(before[folder / "IM0000.dcm"])
    code, _, (line,) = run(model, copied.parent, tmp_path / "out")
    assert (code, line) == (1, f"error: {copied.parent}: holds no scans; {EXPECTED}")


def test_probabilities_lie_beside_dicom_seg(model: Path, tmp_path: Path, run: Run) -> None:
    folder = save(tmp_path / "in", slices(noise(), SPACING))
    assert run(model, folder, tmp_path / "out" / "mask.dcm", "--probabilities")[0] == 0
    assert names(tmp_path / "out") == ["mask.dcm", "mask.npz"]


@pytest.mark.slow
def test_without_dicom_nothing_of_it_is_imported(model: Path, tmp_path: Path) -> None:
    """And with it, torch's modules that are left out make no surprise."""
    save(tmp_path / "in", slices(noise(), SPACING))
    nifti = scan(tmp_path / "X.nii.gz")
    for source, packages in ((nifti, set()), (tmp_path / "in", {"pydicom", "highdicom"})):
        out = tmp_path / ("mask.dcm" if packages else "mask.nii.gz")
        options = ["--model", model, "--input", source, "--output", out, "--device", "cpu"]
        done = python("-X", "importtime", "-m", "app", *options)
        assert done.returncode == 0
        assert "beginning anew" not in done.stderr
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert imported & {"pydicom", "highdicom", "PIL"} >= packages
        assert packages or not imported & {"pydicom", "highdicom", "PIL"}
