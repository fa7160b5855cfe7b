"""python -m app, in process: files in, masks out, one line for whatever goes wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from app import __main__ as command
from app.model import LesionFilter, Postprocessing
from tests.app.conftest import SHAPE, SPACING, Run, mask, names, scan
from tests.app.small_model import with_channels, write_model
from tests.nnunet_models import ROOT, smooth_noise, write_scan
from tests.submissions import HEEDING

GIVEN = ["--input", "x", "--output", "y"]
CASE_LINE = re.compile(
    r"(\S+): read (\S+) s, preprocess (\S+) s, device (\S+) s, network (\S+) s, "
    r"restore (\S+) s, write (\S+) s, total (\S+) s -> (\S+)"
)


def test_a_file_to_a_file(model: Path, tmp_path: Path, run: Run) -> None:
    source = scan(tmp_path / "X_0000.nii.gz")
    target = tmp_path / "new" / "mask.nii.gz"
    code, out, err = run(model, source, target)
    assert (code, err) == (0, [])
    ready, line = out
    assert re.fullmatch(
        r"model tiny: PlainConvUNet, 1 member\(s\), (float32|bfloat16) on cpu, "
        r"ready \d+\.\d\d s after process start",
        ready,
    )
    found = CASE_LINE.fullmatch(line)
    assert found
    assert (found[1], found[9]) == ("X", str(target))
    *stages, total = (float(s) for s in found.groups()[1:8])
    assert total == pytest.approx(sum(stages), abs=0.04)  # seven numbers of two decimals
    assert names(target.parent) == ["mask.nii.gz"]
    labels, image, original = mask(target), sitk.ReadImage(target), sitk.ReadImage(source)
    assert labels.shape == SHAPE
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1}
    for geometry in (sitk.Image.GetSpacing, sitk.Image.GetOrigin, sitk.Image.GetDirection):
        assert geometry(image) == pytest.approx(geometry(original), rel=1e-6)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".mhd"])
def test_a_folder_to_a_folder_in_every_format(
    suffix: str, model: Path, tmp_path: Path, run: Run
) -> None:
    scan(tmp_path / "in" / f"X_0000{suffix}")
    scan(tmp_path / "in" / f"Y{suffix}", seed=1)
    (tmp_path / "in" / "notes.txt").write_text("not a scan")
    code, out, err = run(model, tmp_path / "in", tmp_path / "out")
    assert (code, err) == (0, [])
    assert [line.partition(":")[0] for line in out] == ["model tiny", "X", "Y"]
    files = (".mhd", ".zraw") if suffix == ".mhd" else (suffix,)
    assert names(tmp_path / "out") == [f"{name}{s}" for name in "XY" for s in files]
    # The format changes nothing: the same scan as NIfTI has the same mask.
    reference = scan(tmp_path / "reference.nii.gz")
    assert run(model, reference, tmp_path / "mask.nii")[0] == 0
    x, y = (mask(tmp_path / "out" / f"{n}{suffix}") for n in "XY")
    assert np.array_equal(x, mask(tmp_path / "mask.nii"))
    assert not np.array_equal(x, y)


def test_progress_is_for_a_terminal_only(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = scan(tmp_path / "X_0000.nii.gz")
    arguments = ["--model", model, "--input", source, "--output", tmp_path / "out", "--device=cpu"]
    assert command.main([str(a) for a in arguments]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert command.main([str(a) for a in arguments]) == 0
    windows = re.findall(r"\r\x1b\[Kwindow (\d+) of (\d+)", capsys.readouterr().err)
    assert windows == [(str(n + 1), str(len(windows))) for n in range(len(windows))]
    assert len(windows) > 1


@pytest.mark.parametrize("broken", "abc")
def test_a_broken_scan_does_not_stop_the_others(
    broken: str, model: Path, tmp_path: Path, run: Run
) -> None:
    for number, name in enumerate("abc"):
        scan(tmp_path / "in" / f"{name}.nii.gz", number)
    file = tmp_path / "in" / f"{broken}.nii.gz"
    file.write_bytes(file.read_bytes()[:3000])
    code, out, err = run(model, tmp_path / "in", tmp_path / "out")
    assert code == 1
    (line,) = err
    assert line.startswith(f"error: {file}: ")
    good = "abc".replace(broken, "")
    assert [line.partition(":")[0] for line in out] == ["model tiny", *good]
    assert names(tmp_path / "out") == [f"{name}.nii.gz" for name in good]
    for name in good:
        target = tmp_path / f"{name}.nii.gz"
        assert run(model, tmp_path / "in" / target.name, target)[0] == 0
        assert np.array_equal(mask(target), mask(tmp_path / "out" / target.name))


def test_a_bad_name_does_not_stop_the_others(tmp_path: Path, run: Run) -> None:
    folder = write_model(tmp_path / "two", **changes_for_channels(2))
    for channel in range(2):
        scan(tmp_path / "in" / f"X_{channel:04d}.nii.gz", channel)
    scan(tmp_path / "in" / "Y_0000.nii.gz")
    code, out, err = run(folder, tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert len(err) == 1
    assert "Y_0001.nii.gz is missing" in err[0]
    assert len(out) == 2
    assert names(tmp_path / "out") == ["X.nii.gz"]


def changes_for_channels(channels: int) -> dict[str, Any]:
    config = with_channels(channels)
    fields = ("channels", "normalization", "network")
    return {name: getattr(config, name) for name in fields}


@pytest.mark.parametrize(
    ("spacing", "shape", "message"),
    [
        ((4.0, 1.2, 1.4), SHAPE, "different spacing (4 x 1.2 x 1.4 mm, not 4 x 1.2 x 1.3 mm)"),
        (SPACING, (10, 24, 21), "different shape (10 x 24 x 21, not 10 x 24 x 22)"),
    ],
)
def test_channels_on_different_grids(
    spacing: tuple[float, float, float],
    shape: tuple[int, ...],
    message: str,
    tmp_path: Path,
    run: Run,
) -> None:
    folder = write_model(tmp_path / "two", **changes_for_channels(2))
    scan(tmp_path / "in" / "X_0000.nii.gz")
    second = write_scan(tmp_path / "in" / "X_0001.nii.gz", smooth_noise(shape, 1), spacing)
    code, _, err = run(folder, tmp_path / "in", tmp_path / "out")
    assert code == 1
    assert err == [f"error: {second}: {message} than X_0000.nii.gz; resample it first"]
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize("harm", ["none", "cut", "other", "float", "probabilities", "cut npz"])
def test_what_is_there_and_whole_is_skipped(
    harm: str, model: Path, tmp_path: Path, run: Run
) -> None:
    for number, name in enumerate("ab"):
        scan(tmp_path / "in" / f"{name}.nii.gz", number)
    options = ("--skip-existing", "--probabilities") if "p" in harm else ("--skip-existing",)
    assert run(model, tmp_path / "in", tmp_path / "out", *options)[0] == 0
    there, npz = tmp_path / "out" / "a.nii.gz", tmp_path / "out" / "a.npz"
    before = there.read_bytes()
    match harm:
        case "cut":
            there.write_bytes(before[:-5])
        case "other":
            write_scan(there, np.zeros((10, 24, 21), np.uint8), SPACING)
        case "float":
            scan(there)
        case "probabilities":
            npz.unlink()
        case "cut npz":
            npz.write_bytes(npz.read_bytes()[:-9])
    stamps = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    code, out, err = run(model, tmp_path / "in", tmp_path / "out", *options)
    assert (code, err) == (0, [])
    again = {file.name for file, stamp in stamps.items() if file.stat().st_mtime_ns != stamp}
    assert [line for line in out if line.startswith("b: done before -> ")]
    assert bool(again) == (harm != "none")
    assert not any(name.startswith("b") for name in again)
    assert len(out) == (2 if harm == "none" else 3)
    assert there.read_bytes() == before
    assert npz.exists() == ("p" in harm)


def test_quiet_says_only_what_is_wrong(tmp_path: Path, run: Run) -> None:
    more: dict[str, Any] = {"lesion_filter": LesionFilter(0.01, 0.5, "none")}
    more |= {"postprocessing": Postprocessing(((1,),), "made up")}
    model = write_model(tmp_path / "model", **more)
    scan(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"")
    code, out, err = run(model, tmp_path / "in", tmp_path / "out", "--quiet")
    assert (code, out, len(err)) == (1, [], 1)
    again = ("--quiet", "--skip-existing")
    assert run(model, tmp_path / "in" / "a.nii.gz", tmp_path / "out", *again) == (0, [], [])


def test_verbose_says_what_was_read(model: Path, tmp_path: Path, run: Run) -> None:
    source = scan(tmp_path / "a.nii.gz")
    code, out, err = run(model, source, tmp_path / "out", "--verbose")
    assert (code, err) == (0, [])
    usual = run(model, source, tmp_path / "out")[1]
    assert len(out) == len(usual) + 4
    assert out[1:4] == [
        f"model tiny: {model}, channels CT, labels background, lesion",
        "model tiny: patches of 8 x 16 x 16 voxels of 3 x 1.5 x 1.5 mm",
        f"a: {source} is int16, 10 x 24 x 22 voxels of 4 x 1.2 x 1.3 mm (z, y, x)",
    ]
    # 13 x 19 x 19 voxels of the network's, in steps of at most 4 x 8 x 8: 3 x 2 x 2.
    assert out[4] == "a: 12 windows"


@pytest.mark.parametrize("output", ["notes", "notes/masks", "notes/mask.nii.gz"])
def test_an_output_that_cannot_be_written(
    output: str, model: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "notes").write_text("a file, not a folder")
    code, out, err = run(model, scan(tmp_path / "X.nii.gz"), tmp_path / output)
    assert (code, out) == (1, [])
    (line,) = err
    assert line.startswith(f"error: {tmp_path / 'notes'}")
    assert "cannot be written to" in line
    assert (tmp_path / "notes").read_text() == "a file, not a folder"


def test_a_scan_that_the_model_cannot_see(model: Path, tmp_path: Path, run: Run) -> None:
    source = scan(tmp_path / "X.nii.gz", spacing=(0.1, 1.2, 1.3))
    code, _, err = run(model, source, tmp_path / "out")
    assert code == 1
    (line,) = err
    assert line.startswith(f"error: {source}: the scan is (10, 24, 22) voxels of (0.1")
    assert "less than one voxel of the model's (3.0, 1.5, 1.5) mm" in line
    assert names(tmp_path / "out") == []


def test_an_old_mask_stays_where_the_new_one_fails(model: Path, tmp_path: Path, run: Run) -> None:
    target = tmp_path / "mask.nii.gz"
    target.write_bytes(b"old")
    (tmp_path / "X.nii.gz").write_bytes(b"nothing")
    assert run(model, tmp_path / "X.nii.gz", target)[0] == 1
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["X.nii.gz", "mask.nii.gz"]
    scan(tmp_path / "X.nii.gz")
    assert run(model, tmp_path / "X.nii.gz", target)[0] == 0
    assert mask(target).shape == SHAPE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            ([*GIVEN, "--step-size", size], "--step-size: should be more than 0 and at most 1")
            for size in ("0", "1.01", "nan", "half")
        ),
        ([*GIVEN, "--device", "tpu"], "argument --device: invalid choice"),
        ([*GIVEN, "--bogus"], "unrecognized arguments: --bogus"),
        *(
            ([*GIVEN, "--vram-budget", mib], "--vram-budget: should be a whole number of MiB")
            for mib in ("0", "4G", "-4096")
        ),
        *(
            ([*GIVEN, "--time-budget", s], "--time-budget: should be a positive number of seconds")
            for s in ("0", "inf", "nan", "soon")
        ),
        ([*GIVEN, "--time-budget", "45", "--exact"], "--time-budget may enlarge the step"),
        ([*GIVEN, "--crop-to-body", "--exact"], "--crop-to-body moves the windows"),
        ([], "--input, --output"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_what_ends_it_is_one_line_and_leaves_nothing(
    number: signal.Signals, code: int, word: str, model: Path, tmp_path: Path
) -> None:
    scan(tmp_path / "scans" / "X.nii.gz")
    command_line = ["-m", "app", "--model", model, "--input", tmp_path / "scans", "--output"]
    slow = [tmp_path / "out", "--device", "cpu", "--step-size", "0.005"]
    process = subprocess.Popen(
        [*HEEDING, sys.executable, *map(str, (*command_line, *slow))],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    process.send_signal(number)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()  # one that does not heed it
    assert (process.returncode, err) == (code, f"{word}; masks that are there are complete\n")
    assert names(tmp_path / "out") == []


def test_what_few_runs_need_is_not_imported_at_the_start() -> None:
    """Before torch, which takes longer than all the rest, nothing may keep it waiting."""
    rare = {"cc3d", "pydicom", "torch", "zipfile", "volumes.npz", "app.dicom.series"}
    code = "import sys, app.__main__, app.run; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not rare & {*done.stdout.split()}
