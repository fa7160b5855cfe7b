import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from evaluation import demo, samples
from evaluation.errors import EvaluationError
from evaluation.runners import docker, process

# A submission that takes everything above 0 HU for lesion; `EXTRA` is what a test adds to it.
APP = """
import argparse, os, pathlib, sys, time
import SimpleITK as sitk
parser = argparse.ArgumentParser()
parser.add_argument("--input", type=pathlib.Path)
parser.add_argument("--output", type=pathlib.Path)
given = parser.parse_args()
(path,) = given.input.iterdir()
mask = sitk.ReadImage(str(path)) > 0
name = path.name.replace("_0000.nii.gz", ".nii.gz")
print("segmenting", name, "on", os.getcwd())
EXTRA
sitk.WriteImage(mask, str(given.output / name))
print("done", file=sys.stderr)
"""

# Stands for the Docker CLI: notes its arguments; `container run` runs predict.sh in the source.
DOCKER = """#!{python}
import json, pathlib, shutil, subprocess, sys, tempfile
root = pathlib.Path({root!r})
arguments = sys.argv[1:]
with (root / "docker.jsonl").open("a") as log:
    log.write(json.dumps(arguments) + "\\n")
if arguments[0] == "version":
    print("99.1")
elif arguments[0] == "info":
    print({runtimes!r})
elif arguments[0] == "build":
    print("Step 1/1")
    print({build_says!r})
    sys.exit({build_exit})
elif arguments[:2] == ["container", "run"]:
    with tempfile.TemporaryDirectory(dir=root) as workspace:
        shutil.copytree(root / "source", workspace, dirs_exist_ok=True)
        for at, word in enumerate(arguments):
            if word == "-v":
                host, inside = arguments[at + 1].split(":")
                pathlib.Path(workspace, pathlib.Path(inside).name).symlink_to(host.rstrip("/"))
        sys.exit(subprocess.run(arguments[-3:], cwd=workspace).returncode)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "app").mkdir(parents=True)
    (folder / "weights" / "tiny").mkdir(parents=True)
    (folder / "predict.sh").write_text("python3 -m app --input inputs --output outputs\n")
    (folder / "weights" / "tiny" / "model.json").write_text('{"notice": "a stand-in"}')
    set_app(folder)
    return folder


def set_app(source: Path, extra: str = "") -> None:
    (source / "app" / "__main__.py").write_text(APP.replace("EXTRA", extra))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Both samples in small: lung1 with 8 lesion voxels of 1 ml above 0 HU, of which 4 count."""
    folder = tmp_path / "samples"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for name in ("lung1", "lung2"):
        hu = np.full((10, 12, 14), -800, np.int16)
        hu[4:6, 4:6, 4:6] = 50
        reference = np.zeros(hu.shape, np.uint8)
        reference[4, 4:6, 4:6] = 1
        for path, values in (
            (folder / "images" / f"{name}_0000.nii.gz", hu),
            (folder / "labels" / f"{name}.nii.gz", reference),
        ):
            image = sitk.GetImageFromArray(values)
            image.SetSpacing((10.0, 10.0, 10.0))
            image.SetDirection((-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
            sitk.WriteImage(image, str(path))
    return folder


@pytest.fixture
def settings(tmp_path: Path, source: Path, cache: Path) -> Callable[..., demo.Settings]:
    def make(**changes: Any) -> demo.Settings:
        chosen = {
            "output": tmp_path / "demo",
            "cache": cache,
            "runner": "process",
            "build_arguments": (),
            "timeout_s": 60.0,
            "environment": dict(os.environ),
            "source": source,
        }
        return demo.Settings(**{**chosen, **changes})

    return make


def use_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, build_exit: int = 0, gpu: bool = False
) -> Callable[[], list[list[str]]]:
    """Put a stand-in of the Docker CLI first on PATH; return how to see its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "docker": DOCKER.format(
            python=sys.executable,
            root=str(tmp_path),
            runtimes='{"nvidia": {}, "runc": {}}' if gpu else '{"runc": {}}',
            build_says="failed to fetch" if build_exit else "Successfully built",
            build_exit=build_exit,
        ),
        "nvidia-smi": "#!/bin/sh\necho 'GPU 0: a GPU'\n" if gpu else "#!/bin/sh\nexit 9\n",
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    calls = tmp_path / "docker.jsonl"
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()]


def test_as_a_process_every_result_is_where_it_is_said_to_be(
    settings: Callable[..., demo.Settings],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert demo.demonstrate(settings())
    output = tmp_path / "demo"
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 24
    for name in ("lung1", "lung2"):
        mask = sitk.GetArrayFromImage(sitk.ReadImage(str(output / "masks" / f"{name}.nii.gz")))
        assert np.argwhere(mask).min(axis=0).tolist() == [4, 4, 4]
        assert mask.sum() == 8
        assert (output / "previews" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        log = (output / "logs" / f"{name}.log").read_text()
        assert f"segmenting {name}.nii.gz" in log
        assert "done" in log
    for place in ("masks", "previews", "logs", "timings.json"):
        assert str(output / place) in said
    assert "tiny: a stand-in" in said
    timings = json.loads((output / "timings.json").read_text())
    assert timings["runner"] == "process"
    first = timings["cases"][0]
    assert 0.05 < first.pop("runtime_s") < 60
    assert first == {
        "name": "lung1",
        "reference_ml": pytest.approx(4.0),
        "predicted_ml": pytest.approx(8.0),
        "dice": pytest.approx(2 * 4 / (8 + 4)),
        "problem": None,
    }
    row = next(line.split() for line in said.splitlines() if line.startswith("lung1"))
    assert row[2:] == ["8.00", "4.00", "0.667"]
    assert sorted(path.name for path in output.iterdir()) == [
        "logs", "masks", "previews", "timings.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("sys.exit('no such organ')", "exit code 1: no such organ"),
        ("sys.exit(0)", "no lung1.nii.gz in outputs"),
        ("mask = mask * 2", "the mask must hold 0 and 1 only, it holds 0, 2"),
        ("mask.SetOrigin((1, 2, 3))", "its origin is (1.0, 2.0, 3.0), the scan's is"),
        ("mask = mask[1:, :, :]", "its size is (13, 12, 10) voxels (x, y, z)"),
        ("(given.output / name).write_text('junk'); sys.exit(0)", "cannot be read as an image"),
    ],
)
def test_a_bad_mask_is_said_in_one_line(
    settings: Callable[..., demo.Settings], source: Path, tmp_path: Path, extra: str, problem: str
) -> None:
    set_app(source, extra)
    stale = tmp_path / "demo" / "previews" / "lung1.png"
    for folder in demo.FOLDERS:
        (tmp_path / "demo" / folder).mkdir(parents=True)
    stale.write_text("of an earlier run")
    run, _ = demo.prepare(settings())
    report = demo.run_case(samples.fetch(settings().cache)[0], run, tmp_path / "demo")
    assert report.problem is not None
    assert problem in report.problem
    assert "\n" not in report.problem
    assert report.dice is None
    assert not stale.exists()
    assert problem in demo.table_row(report)


def test_after_a_failed_case_the_next_one_runs(
    settings: Callable[..., demo.Settings],
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_app(source, "if 'lung1' in name: sys.exit('no such organ')")
    assert not demo.demonstrate(settings())
    said = capsys.readouterr().out.splitlines()
    (row,) = [line for line in said if "FAILED" in line]
    assert row.startswith("lung1")
    assert any(line.startswith("lung2") and line.endswith("0.667") for line in said)
    cases = json.loads((tmp_path / "demo" / "timings.json").read_text())["cases"]
    assert "no such organ" in cases[0]["problem"]
    assert cases[1]["problem"] is None


def test_the_scan_in_the_cache_is_safe_from_the_submission(
    settings: Callable[..., demo.Settings], source: Path, cache: Path
) -> None:
    before = (cache / "images" / "lung1_0000.nii.gz").read_bytes()
    set_app(source, "path.write_text('overwritten')")
    assert demo.demonstrate(settings())
    assert (cache / "images" / "lung1_0000.nii.gz").read_bytes() == before


def test_any_user_of_an_image_may_read_inputs_and_write_outputs(
    cache: Path, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        demo.stage(cache / "images" / "lung1_0000.nii.gz", tmp_path)
    finally:
        os.umask(before)
    modes = {
        path: (tmp_path / path).stat().st_mode & 0o777
        for path in ("inputs", "inputs/lung1_0000.nii.gz", "outputs")
    }
    assert modes == {"inputs": 0o755, "inputs/lung1_0000.nii.gz": 0o644, "outputs": 0o777}


def test_a_process_and_its_children_end_at_the_time_limit(
    settings: Callable[..., demo.Settings], source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "predict.sh").write_text("sleep 30 & echo $! > ../pid; wait\n")
    work = source.parent / "one" / "work"
    work.mkdir(parents=True)
    outcome = process.run(
        work, work.parent / "log", source=source, environment=os.environ, timeout_s=1.0
    )
    assert outcome.exit_code is None
    assert 1.0 <= outcome.runtime_s < 20
    child = Path("/proc", (work.parent / "pid").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"
    assert not demo.demonstrate(settings(timeout_s=0.1))
    assert "FAILED: stopped at the time limit" in capsys.readouterr().out


def test_a_tree_without_an_app_is_named(
    settings: Callable[..., demo.Settings], tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(EvaluationError, match="bare/app is missing"):
        demo.demonstrate(settings(source=bare))


def test_with_an_engine_each_case_gets_the_organisers_command_line(
    settings: Callable[..., demo.Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = use_docker(tmp_path, monkeypatch)
    extra = ["--build-arg", "BASE_IMAGE=base"]
    assert demo.demonstrate(settings(runner="auto", build_arguments=extra))
    assert ["build", "-t", "flare-lesion", *extra, "."] in calls()
    runs = [call for call in calls() if call[:2] == ["container", "run"]]
    assert len(runs) == 2
    names = {call[call.index("--name") + 1] for call in runs}
    assert len(names) == 2
    for call in runs:
        command = [word for word in call if word not in names]
        assert command[:6] == ["container", "run", "-m", "28G", "--name", "--rm"]
        assert command[-4:] == ["flare-lesion", "/bin/bash", "-c", "sh predict.sh"]
        mounts = [call[at + 1] for at, word in enumerate(call) if word == "-v"]
        assert [mount.partition(":")[2] for mount in mounts] == [
            "/workspace/inputs/",
            "/workspace/outputs/",
        ]
        assert all(mount.startswith("/") for mount in mounts)
    said = capsys.readouterr().out
    assert "Docker 99.1" in said
    assert "without a GPU" in said
    assert "Successfully built" in (tmp_path / "demo" / "logs" / "build.log").read_text()
    assert "segmenting lung1" in (tmp_path / "demo" / "logs" / "lung1.log").read_text()


def test_a_gpu_is_asked_for_where_driver_and_engine_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_docker(tmp_path, monkeypatch, gpu=True)
    assert docker.gpu_options() == ["--gpus", "device=0"]
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert docker.gpu_options() == []


def test_a_failed_build_is_one_line(
    settings: Callable[..., demo.Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_docker(tmp_path, monkeypatch, build_exit=1)
    message = r"docker build failed: failed to fetch.*build\.log"
    with pytest.raises(EvaluationError, match=message):
        demo.demonstrate(settings(runner="docker"))
    assert demo.demonstrate(settings(runner="auto"))
    assert re.search(rf"as a process \({message}", capsys.readouterr().out)


def test_a_container_past_its_time_is_removed(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = use_docker(tmp_path, monkeypatch)
    (source / "predict.sh").write_text("sleep 9\n")
    work = tmp_path / "work"
    work.mkdir()
    for folder in ("inputs", "outputs"):
        (work / folder).mkdir()
    outcome = docker.run(work, tmp_path / "log", image="flare-lesion", timeout_s=3.0)
    assert outcome.exit_code is None
    name = next(call for call in calls() if call[0] == "container")[5]
    assert name.startswith("flare-lesion-")
    assert calls()[-1] == ["rm", "--force", name]


def test_without_an_engine_auto_takes_a_process_and_docker_is_an_error(
    settings: Callable[..., demo.Settings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(docker, "engine_version", lambda: None)
    assert demo.demonstrate(settings(runner="auto"))
    assert "no Docker engine answers" in capsys.readouterr().out
    with pytest.raises(EvaluationError, match="no Docker engine answers: start it"):
        demo.demonstrate(settings(runner="docker"))


def test_the_environment_adds_build_arguments_before_the_command_lines() -> None:
    parsed = demo.parse(
        ["--build-arg", "TORCH=b", "--output", "out"],
        {"IMAGE_BUILD_ARGS": "--build-arg BASE_IMAGE='my base' --network host"},
    )
    assert parsed.build_arguments == [
        "--build-arg", "BASE_IMAGE=my base", "--network", "host", "--build-arg", "TORCH=b",
    ]  # fmt: skip
    assert parsed.output == Path("out")
    assert parsed.runner == "auto"
    with pytest.raises(EvaluationError, match="IMAGE_BUILD_ARGS"):
        demo.parse([], {"IMAGE_BUILD_ARGS": "'"})


def test_main_says_what_failed_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def offline(_: Path) -> list[samples.Sample]:
        raise EvaluationError("cannot download the sample scans")

    monkeypatch.setattr(samples, "fetch", offline)
    assert demo.main(["--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: cannot download the sample scans\n"


def test_notices_are_optional_but_cards_must_be_json(tmp_path: Path) -> None:
    for name, card in (("a", '{"patch": [1]}'), ("b", '{"notice": "for tests"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text(card)
    assert demo.notices(tmp_path) == ["b: for tests"]
    assert demo.notices(tmp_path / "nowhere") == []
    (tmp_path / "a" / "model.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"a/model\.json: not valid JSON"):
        demo.notices(tmp_path)
