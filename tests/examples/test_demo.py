from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.runners import InfrastructureError
from evaluation.volumes import read
from examples import demo, demonstration, samples
from tests import engine
from tests.submissions import BEHAVIOURS, lesion, save, write_submission

Make = Callable[..., demonstration.Settings]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The sample in small: so small that its box is all of it."""
    folder = tmp_path / "samples"
    save(folder / "images/lung2_0000.nii.gz", np.where(lesion(), 50, -800).astype("i2"))
    save(folder / "labels/lung2.nii.gz", lesion())
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A submission that fails on the chest and finds everything in the box."""
    behaviours = {"lung2_box": BEHAVIOURS["good"], "lung2": BEHAVIOURS["exit3"]}
    folder = write_submission(tmp_path / "source", behaviours)
    for name, card in ((demonstration.MODEL, '{"notice": "a stand-in"}'), ("another", "{}")):
        (folder / "weights" / name).mkdir(parents=True)
        (folder / "weights" / name / "model.json").write_text(card)
    return folder


@pytest.fixture
def settings(tmp_path: Path, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    # Whoever runs the tests may have an image of that name.
    monkeypatch.setattr(demonstration, "IMAGE", f"flare-test-{uuid.uuid4().hex[:8]}")

    def make(**changes: Any) -> demonstration.Settings:
        chosen = {
            "output": tmp_path / "demo",
            "cache": cache,
            "runner": "process",
            "gpu": "none",
            "build_arguments": (),
            "timeout_s": 60.0,
            "source": source,
        }
        return demonstration.Settings(**{**chosen, **changes})

    return make


def check_results(output: Path, said: str) -> None:
    results = output / "results"
    assert read(results / "predictions" / "lung2_box.nii.gz").voxels_zyx.sum() == 76
    assert (results / "logs" / "lung2.log").read_text() == "no weights\n"
    places = [Path(place) for place in re.findall(rf"{results}/\S+", said)]
    assert all(place.exists() for place in places)
    assert places[0].read_bytes().startswith(b"\x89PNG"), "the picture comes first"
    assert said.index("cpu-small: a stand-in") < said.index("expect ") < said.index("[  1/2]")
    assert re.search(r"lung2_box +ok .* DSC 1\.000 NSD 1\.000", said)
    assert re.search(r"lung2 +nonzero_exit .* exit code 3: no weights", said)
    assert re.search(r"\| the box 25 mm .* \| ok \| 1\.000 \| 1\.000 \| \d+\.\d \|", said)
    assert re.search(r"\| the whole chest \| nonzero_exit \| 0\.000 \| 0\.000 \|", said)


def test_as_a_process_every_result_is_where_it_is_said_to_be(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not demonstration.demonstrate(settings())  # because of the chest
    check_results(tmp_path / "demo", capsys.readouterr().out)


@pytest.mark.engine
def test_in_containers_the_results_are_the_same(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = shlex.split(os.environ.get("IMAGE_BUILD_ARGS", ""))
    try:
        assert not demonstration.demonstrate(settings(runner="auto", build_arguments=arguments))
    finally:
        engine.docker("rmi", "--force", demonstration.IMAGE)
    said = capsys.readouterr().out
    check_results(tmp_path / "demo", said)
    assert "one container a case" in said
    assert (tmp_path / "demo" / "build.log").stat().st_size > 0


@pytest.mark.slow
def test_a_second_demonstration_measures_anew(
    settings: Make, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demonstration.demonstrate(settings())
    (source / "predict.sh").write_text("exit 5\n")
    assert not demonstration.demonstrate(settings())
    assert "from an earlier run" not in capsys.readouterr().out
    assert not list((tmp_path / "demo" / "results" / "predictions").glob("*"))


def test_the_scan_in_the_cache_is_safe_from_the_submission(
    settings: Make, source: Path, cache: Path
) -> None:
    scan = cache / "images" / "lung2_0000.nii.gz"
    before = scan.read_bytes()
    (source / "predict.sh").write_text("chmod u+w inputs/*; for i in inputs/*; do echo x>$i; done")
    demonstration.demonstrate(settings())
    assert scan.read_bytes() == before


def test_a_tree_without_a_submission_is_named(settings: Make, source: Path) -> None:
    (source / "predict.sh").unlink()
    with pytest.raises(EvaluationError, match=r"predict\.sh.*no such script in .*source"):
        demonstration.demonstrate(settings())


@pytest.mark.engine
def test_a_failed_build_is_one_line(
    settings: Make, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "Dockerfile").write_text("FROM scratch\nCOPY nothing-here /\n")
    with pytest.raises(EvaluationError, match=r"docker build failed: .*build\.log\)"):
        demonstration.demonstrate(settings(runner="docker"))
    demonstration.demonstrate(settings(runner="auto"))
    said = capsys.readouterr().out
    assert re.search(r"image +building .*build\.log", said)
    assert "as a process (docker build failed: " in said


def test_without_an_engine_auto_takes_a_process_and_docker_is_an_error(
    settings: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    demonstration.demonstrate(settings(runner="auto"))
    assert "as a process (no container engine answers)" in capsys.readouterr().out
    with pytest.raises(InfrastructureError, match=r"no container engine answers.*start Docker"):
        demonstration.demonstrate(settings(runner="docker"))


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


def test_help_waits_for_nothing_that_only_a_run_needs() -> None:
    script = (
        "import sys; from examples import demo\n"
        "try: demo.main(['--help'])\n"
        "finally: print(*sys.modules)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=engine.ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "examples.demo" in loaded
    assert not {"numpy", "SimpleITK", "docker", "evaluation.harness"} & set(loaded)


def test_main_says_what_failed_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def offline(_: Path, **__: object) -> list[samples.Sample]:
        raise EvaluationError("cannot download the sample scans")

    monkeypatch.setattr(samples, "fetch", offline)
    assert demo.main(["--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "error: cannot download the sample scans\n"


@pytest.mark.parametrize("card", [None, "{", "[]", "{}"])
def test_a_model_without_its_notice_is_one_line(
    settings: Make, source: Path, card: str | None
) -> None:
    path = source / "weights" / demonstration.MODEL / "model.json"
    path.unlink()
    if card is not None:
        path.write_text(card)
    with pytest.raises(EvaluationError, match=r"cpu-small/model\.json: no notice") as caught:
        demonstration.demonstrate(settings())
    assert "\n" not in str(caught.value)
