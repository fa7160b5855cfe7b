"""The image as the organisers meet it: loaded, called, and looked into."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from msgspec.structs import replace

from evaluation.cases import find
from evaluation.conditions import usual
from evaluation.states import State
from evaluation.submission import Submission
from evaluation.trial import MeasuredRunner
from tests import engine
from tests.evaluation.challenges import FLARE24, ONE_SOCKET

LOCKED_DOWN = (
    *("--network", "none", "--read-only", "--tmpfs", "/tmp", "--user", "12345:12345"),
    *("--cap-drop", "ALL", "--shm-size", "64m"),
)


@pytest.fixture(scope="session")
def scan(request: pytest.FixtureRequest, synthetic_scan: Path) -> Path:
    """A small real scan where there are any, else the synthetic one."""
    try:
        real_data: Path = request.getfixturevalue("real_data")
    except pytest.skip.Exception:
        return synthetic_scan
    return real_data / "ct" / "TotalSeg-example_ct.nii.gz"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with inputs/ and outputs/ as the organisers prepare them."""
    (tmp_path / "inputs").mkdir()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs").chmod(0o777)
    return tmp_path


def put(scan: Path, folder: Path, case: str) -> None:
    shutil.copyfile(scan, folder / "inputs" / f"{case}_0000.nii.gz")


def outputs(folder: Path) -> set[str]:
    return {path.name for path in (folder / "outputs").iterdir()}


def assert_is_mask_of(mask_file: Path, scan_file: Path) -> None:
    mask: Any = nibabel.load(mask_file)
    scan: Any = nibabel.load(scan_file)
    assert mask.shape == scan.shape
    np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
    values = np.asanyarray(mask.dataobj)
    assert values.dtype == np.uint8
    assert values.max() <= 1
    # The organisers score as a user of their own.
    assert mask_file.stat().st_mode & 0o044 == 0o044


@pytest.mark.engine
def test_the_organisers_command_gives_a_mask(image: engine.Image, scan: Path, folder: Path) -> None:
    put(scan, folder, "FLARE_case")
    done = engine.run_predict(image, folder)
    assert done.returncode == 0, done.stderr
    assert "beginning anew" not in done.stderr
    assert outputs(folder) == {"FLARE_case.nii.gz"}
    assert_is_mask_of(folder / "outputs" / "FLARE_case.nii.gz", scan)


@pytest.mark.engine
def test_several_cases_locked_down(image: engine.Image, synthetic_scan: Path, folder: Path) -> None:
    put(synthetic_scan, folder, "a")
    put(synthetic_scan, folder, "b")
    done = engine.run_predict(image, folder, *LOCKED_DOWN)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == {"a.nii.gz", "b.nii.gz"}
    for mask in (folder / "outputs").iterdir():
        assert_is_mask_of(mask, synthetic_scan)


@pytest.mark.engine
def test_a_model_with_a_lesion_filter(
    image: engine.Image, synthetic_scan: Path, folder: Path
) -> None:
    put(synthetic_scan, folder, "case")
    weights = folder / "weights" / "filtered"
    shutil.copytree(engine.ROOT / "weights" / "cpu-small", weights)
    content = json.loads((weights / "model.json").read_text())
    rule = {"min_volume_ml": 1e6, "min_probability": 0.0, "evidence": "none is as large"}
    (weights / "model.json").write_text(json.dumps(content | {"lesion_filter": rule}))
    mounted = ("-v", f"{weights.parent}:/workspace/weights:ro")
    done = engine.run_predict(image, folder, *LOCKED_DOWN, *mounted)
    assert done.returncode == 0, done.stderr
    assert "no lesions below 1e+06 ml" in done.stdout
    mask: Any = nibabel.load(folder / "outputs" / "case.nii.gz")
    assert not np.asanyarray(mask.dataobj).any()


@pytest.mark.engine
def test_stopped_it_ends_by_itself_and_leaves_nothing(
    image: engine.Image, scan: Path, folder: Path
) -> None:
    """The first process of a container is sent SIGTERM, which it ignores unless it asks for it."""
    put(scan, folder, "case")
    mounted = (f"--volume={folder}/{name}/:/workspace/{name}/" for name in ("inputs", "outputs"))
    slow = ("sh", "predict.sh", "--step-size", "0.005")
    place = ("--env", "PYTHONUNBUFFERED=1", *mounted, f"{image.name}:latest")
    container = engine.docker("run", "--detach", *place, *slow).stdout.strip()
    try:
        for _ in range(600):
            if "ready" in engine.docker("logs", container).stdout:
                break
            time.sleep(0.1)
        engine.docker("stop", "--time", "20", container)
        code = engine.docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout
        assert int(code) == 128 + signal.SIGTERM  # 128 + SIGKILL if it had to be killed
        said = engine.docker("logs", container).stderr
        assert said.splitlines()[-1] == "terminated; masks that are there are complete"
        assert outputs(folder) == set()
    finally:
        engine.docker("rm", "--force", container)


@pytest.mark.engine
def test_without_a_gpu_it_warns_and_goes_on(
    image: engine.Image, synthetic_scan: Path, folder: Path
) -> None:
    put(synthetic_scan, folder, "case")
    # void: no GPU even where NVIDIA's runtime is the engine's default.
    done = engine.run_predict(image, folder, "-e", "NVIDIA_VISIBLE_DEVICES=void", gpu=False)
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == {"case.nii.gz"}
    assert "cpu" in done.stderr.lower()


@pytest.mark.engine
def test_a_broken_case_spoils_no_other(
    image: engine.Image, synthetic_scan: Path, folder: Path
) -> None:
    put(synthetic_scan, folder, "a")
    put(synthetic_scan, folder, "c")
    whole = synthetic_scan.read_bytes()
    (folder / "inputs" / "b_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    done = engine.run_predict(image, folder, *LOCKED_DOWN)
    assert done.returncode == 1, done.stderr
    assert "b_0000.nii.gz" in done.stderr
    assert "Traceback" not in done.stderr
    assert outputs(folder) == {"a.nii.gz", "c.nii.gz"}
    assert_is_mask_of(folder / "outputs" / "a.nii.gz", synthetic_scan)


def in_image(image: engine.Image, *command: str) -> str:
    return engine.docker("run", "--rm", *LOCKED_DOWN, image.id, *command).stdout


@pytest.mark.engine
@pytest.mark.parametrize("socket", ["tumor-lesion-segmentation", "another-socket"])
def test_on_grand_challenge_its_own_command_finds_the_socket(
    image: engine.Image, synthetic_scan: Path, folder: Path, socket: str
) -> None:
    """The same image, built for another user, by the harness under the platform's contract."""
    shutil.copyfile(synthetic_scan, folder / "inputs" / "case.nii.gz")
    built = engine.build_image(RUN_AS="1000", OUTPUT_SOCKET=socket)
    challenge = replace(FLARE24, contract=replace(ONE_SOCKET, output_socket=socket))
    conditions = usual(challenge)
    (case,) = find(folder / "inputs")
    mask = folder / "mask.nii.gz"
    try:
        runner = Submission(image=built.name).runner(conditions, None)
        with (
            contextlib.closing(runner),
            MeasuredRunner(runner, conditions, folder) as measured,
        ):
            trial = measured.run(case, mask)
    finally:
        engine.remove_image(built)
    assert (trial.state, trial.message) == (State.OK, "")
    assert_is_mask_of(mask, synthetic_scan)
    # FLARE's command says the same of the same scan.
    put(synthetic_scan, folder, "flare")
    (folder / "inputs" / "case.nii.gz").unlink()
    assert engine.run_predict(image, folder, gpu=False).returncode == 0
    ours: Any = nibabel.load(mask)
    theirs: Any = nibabel.load(folder / "outputs" / "flare.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(ours.dataobj), np.asanyarray(theirs.dataobj))


@pytest.mark.engine
def test_image_takes_the_organisers_command(image: engine.Image) -> None:
    config = "{{.Config.WorkingDir}} {{json .Config.Entrypoint}} {{json .Config.Cmd}}"
    found = engine.docker("image", "inspect", "--format", config, image.id).stdout.strip()
    assert found == '/workspace null ["sh","predict.sh"]'
    assert in_image(image, "/bin/bash", "-c", "pwd").strip() == "/workspace"


@pytest.mark.engine
def test_image_holds_the_app_and_one_model(image: engine.Image) -> None:
    rooms = {"app", "volumes", "weights", "predict.sh", "inputs", "outputs"}
    assert set(in_image(image, "ls", "-A", "/workspace").split()) == rooms
    assert len(in_image(image, "ls", "-A", "/workspace/weights").split()) == 1


@pytest.mark.engine
def test_image_imports_no_more_of_torch_than_it_needs(image: engine.Image) -> None:
    code = "from app.lean.start import left_out; print(len(left_out()))"
    assert int(in_image(image, "python3", "-c", code)) > 300


@pytest.mark.engine
def test_image_holds_no_tools(image: engine.Image) -> None:
    tools = "gcc cc c++ clang ld make nvcc pip pip3 git curl"
    found = in_image(image, "sh", "-c", f"for t in {tools}; do command -v $t; done; :")
    assert found == ""
    packages = "import importlib.util as u; print([n for n in %r if u.find_spec(n)])"
    names = ["pip", "setuptools", "nnunetv2", "nibabel", "SimpleITK", "pytest"]
    names += ["tests", "evaluation"]
    assert in_image(image, "python3", "-c", packages % names).strip() == "[]"


@pytest.mark.engine
def test_everything_imported_is_compiled(image: engine.Image) -> None:
    # -v names the file that every module was loaded from; what was compiled on the spot is no .pyc.
    # The app's own modules: all of them, as importing is the app's business.
    imports = in_image(
        image, "sh", "-c", "python3 -v -c 'import torch, numpy, safetensors, app' 2>&1"
    )
    loaded = [line for line in imports.splitlines() if line.startswith("# code object from ")]
    source = [line for line in loaded if not line.endswith(".pyc'")]
    assert len([line for line in loaded if "/torch/" in line]) > 500
    assert source == []
    missing = (
        "import pathlib, importlib.util as u; print([str(p) for p in pathlib.Path('app').rglob("
        "'*.py') if not pathlib.Path(u.cache_from_source(str(p))).exists()])"
    )
    assert in_image(image, "python3", "-c", missing).strip() == "[]"


@pytest.mark.engine
def test_an_unknown_user_has_a_home_and_a_name(image: engine.Image) -> None:
    ask = "import getpass, pathlib, tempfile as t; getpass.getuser(); "
    ask += "f = t.NamedTemporaryFile(dir=pathlib.Path.home()); print('ok')"
    assert in_image(image, "python3", "-c", ask).strip() == "ok"


@pytest.mark.engine
def test_saved_archive_loads_as_team_latest(image: engine.Image, tmp_path: Path) -> None:
    team = f"{image.name}-saved"
    engine.docker("tag", image.id, f"{team}:latest")
    archive = tmp_path / f"{team}.tar.gz"
    save = f"docker save {team}:latest | gzip -1 > {archive}"
    subprocess.run(["bash", "-o", "pipefail", "-c", save], check=True, timeout=engine.TIMEOUT_S)
    engine.docker("rmi", f"{team}:latest")
    loaded = engine.docker("load", "-i", archive).stdout
    archive.unlink()
    assert f"Loaded image: {team}:latest" in loaded
    found = engine.docker("image", "inspect", "--format", "{{.Id}}", f"{team}:latest")
    assert found.stdout.strip() == image.id


def process(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        ["/bin/sh", "predict.sh"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=engine.TIMEOUT_S,
    )


def test_predict_sh_runs_without_a_container(synthetic_scan: Path, folder: Path) -> None:
    for name in ("app", "volumes", "weights", "predict.sh"):
        (folder / name).symlink_to(engine.ROOT / name)
    put(synthetic_scan, folder, "case")
    done = process(folder, f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert outputs(folder) == {"case.nii.gz"}
    assert_is_mask_of(folder / "outputs" / "case.nii.gz", synthetic_scan)


def test_predict_sh_says_that_python_is_missing(folder: Path) -> None:
    (folder / "predict.sh").symlink_to(engine.ROOT / "predict.sh")
    done = process(folder, str(folder))
    assert done.returncode == 127
    assert "python3" in done.stderr
