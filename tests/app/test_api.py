"""`app.load` and `Predictor.predict`: the command line's own core, called from Python."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from app import load
from app.image import ImageError
from app.listener import SILENT, Listener
from app.model import ModelError
from tests.app.conftest import SHAPE, SPACING, Run, mask, python, scan
from tests.app.small_model import write_model
from tests.app.test_cli import changes_for_channels
from tests.nnunet_models import ROOT, smooth_noise


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, []),
        ({"exact": True, "tta": True}, ["--exact", "--tta"]),
        ({"step_size": 0.3, "crop_to_body": True}, ["--step-size", "0.3", "--crop-to-body"]),
    ],
)
def test_a_mask_is_the_command_line_s(
    options: dict[str, bool], arguments: list[str], model: Path, tmp_path: Path, run: Run
) -> None:
    source = scan(tmp_path / "X.nii.gz")
    assert run(model, source, tmp_path / "line.nii.gz", *arguments)[0] == 0
    found = load(model, "cpu", **options).predict(source)
    found.write(tmp_path / "api.nii.gz")
    assert (tmp_path / "api.nii.gz").read_bytes() == (tmp_path / "line.nii.gz").read_bytes()
    assert found.voxels_zyx.dtype == np.uint8
    assert found.grid.shape_zyx == SHAPE
    np.testing.assert_allclose(found.grid.spacing_zyx, SPACING, rtol=1e-6)
    found.write(str(tmp_path / "api.nrrd"))
    np.testing.assert_array_equal(mask(tmp_path / "api.nrrd"), found.voxels_zyx)


def test_a_mask_of_a_scan_that_was_turned_lies_on_the_scan(tmp_path: Path, run: Run) -> None:
    folder = write_model(tmp_path / "turned", reader="NibabelIOWithReorient")
    voxels = smooth_noise(SHAPE, 0).T  # x, y, z
    affine = np.array([[0, -1.2, 0, 5], [-1.3, 0, 0, 6], [0, 0, -4, 7], [0, 0, 0, 1]])
    source = tmp_path / "X.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels.astype(np.int16), affine), source)
    assert run(folder, source, tmp_path / "line.nii.gz")[0] == 0
    found = load(folder, "cpu").predict(source)
    found.write(tmp_path / "api.nii.gz")
    assert (tmp_path / "api.nii.gz").read_bytes() == (tmp_path / "line.nii.gz").read_bytes()
    np.testing.assert_array_equal(found.voxels_zyx, mask(tmp_path / "line.nii.gz"))
    np.testing.assert_allclose(found.grid.affine, affine, rtol=1e-6)


def test_channels_are_files_in_order(tmp_path: Path, run: Run) -> None:
    folder = write_model(tmp_path / "two", **changes_for_channels(2))
    files = [scan(tmp_path / "in" / f"X_{number:04d}.nii.gz", number) for number in range(2)]
    assert run(folder, tmp_path / "in", tmp_path / "out")[0] == 0
    predictor = load(str(folder), "cpu")
    found = predictor.predict([str(file) for file in files]).voxels_zyx
    np.testing.assert_array_equal(found, mask(tmp_path / "out" / "X.nii.gz"))
    assert not np.array_equal(found, predictor.predict(files[::-1]).voxels_zyx)
    with pytest.raises(ImageError, match=r"X_0000\.nii\.gz: the model takes one file for each ch"):
        predictor.predict(files[0])
    with pytest.raises(ImageError, match=r"^no file: the model takes"):
        predictor.predict([])


def test_what_is_unusual_about_a_file_is_told(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "X.nii"
    voxels = smooth_noise(SHAPE, 0).astype(np.float32)
    voxels[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.diag([*SPACING[::-1], 1.0])), source)
    told: list[str] = []
    listener = Listener(SILENT.on_window, SILENT.say, told.append)
    load(model, "cpu").predict(source, listener)
    assert told == [f"{source}: 1 voxels are not finite, set to 0"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "gpu"}, "device 'gpu' is none of auto, cuda, cpu"),
        ({"step_size": 0}, "step_size 0 should be more than 0 and at most 1"),
        ({"exact": True, "crop_to_body": True}, "exact masks differ"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], says: str, model: Path) -> None:
    with pytest.raises(ValueError, match=says):
        load(model, **{"device": "cpu", **options})  # type: ignore[arg-type]


def test_what_is_not_there_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none: no model\.json here"):
        load(tmp_path / "none")
    with pytest.raises(ImageError, match=r"none\.nii: "):
        load(model, "cpu").predict(tmp_path / "none.nii")


def test_the_example_in_the_docs(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(model, tmp_path / "weights" / "mine")
    scan(tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text()
    exec(text.split("```python\n")[1].split("```")[0], {})
    lesion_ml = mask(tmp_path / "mask.nii.gz").sum() * np.prod(SPACING) / 1000
    *_, volume, unit = capsys.readouterr().out.split()
    assert float(volume) == pytest.approx(lesion_ml, rel=1e-6)
    assert unit == "ml"


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; from app import load; print(*sys.modules.keys() & {'torch', 'numpy'})"
    done = python("-c", code, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
