from __future__ import annotations

import os
import re
import shlex
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.runners import InfrastructureError
from evaluation.volumes import read
from examples import demo, samples
from tests import engine
from tests.submissions import BEHAVIOURS, lesion, save, write_submission

Make = Callable[..., demo.Settings]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Both samples in small."""
    folder = tmp_path / "samples"
    for name in samples.NAMES:
        save(folder / "images" / f"{name}_0000.nii.gz", np.where(lesion(), 50, -800).astype("i2"))
        save(folder / "labels" / f"{name}.nii.gz", lesion())
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A submission that fails on lung1 and finds everything on lung2."""
    behaviours = {"lung1": BEHAVIOURS["exit3"], "lung2": BEHAVIOURS["good"]}
    folder = write_submission(tmp_path / "source", behaviours)
    (folder / "weights" / "tiny").mkdir(parents=True)
    (folder / "weights" / "tiny" / "model.json").write_text('{"notice": "a stand-in"}')
    return folder


@pytest.fixture
def settings(tmp_path: Path, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    # Whoever runs the tests may have an image of that name.
    monkeypatch.setattr(demo, "IMAGE", f"flare-test-{uuid.uuid4().hex[:8]}")

    def make(**changes: Any) -> demo.Settings:
        chosen = {
            "output": tmp_path / "demo",
            "cache": cache,
            "runner": "process",
            "gpu": "none",
            "build_arguments": (),
            "timeout_s": 60.0,
            "source": source,
        }
        return demo.Settings(**{**chosen, **changes})

    return make


def check_results(output: Path, said: str) -> None:
    results = output / "results"
    assert read(results / "predictions" / "lung2.nii.gz").voxels_zyx.sum() == 76
    assert (results / "overlays" / "lung2-worst.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "logs" / "lung1.log").read_text() == "no weights\n"
    for line in said.splitlines():
        for place in re.findall(rf"{results}/\S+", line):
            assert Path(place).exists()
    assert re.search(r"lung1 +nonzero_exit .* exit code 3: no weights", said)
    assert re.search(r"lung2 +ok .* DSC 1\.000 NSD 1\.000", said)
    assert "| DSC (%) | 50.00 ± 70.71 |" in said
    assert "notice   tiny: a stand-in" in said


def test_as_a_process_every_result_is_where_it_is_said_to_be(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not demo.demonstrate(settings())  # because of lung1
    check_results(tmp_path / "demo", capsys.readouterr().out)


@pytest.mark.engine
def test_in_containers_the_results_are_the_same(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = shlex.split(os.environ.get("IMAGE_BUILD_ARGS", ""))
    try:
        assert not demo.demonstrate(settings(runner="auto", build_arguments=arguments))
    finally:
        engine.docker("rmi", "--force", demo.IMAGE)
    said = capsys.readouterr().out
    check_results(tmp_path / "demo", said)
    assert "one container a case" in said
    assert (tmp_path / "demo" / "build.log").stat().st_size > 0


def test_a_second_demonstration_measures_anew(
    settings: Make, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.demonstrate(settings())
    (source / "predict.sh").write_text("exit 5\n")
    assert not demo.demonstrate(settings())
    assert "from an earlier run" not in capsys.readouterr().out
    assert not (tmp_path / "demo" / "results" / "predictions").exists()


def test_the_scan_in_the_cache_is_safe_from_the_submission(
    settings: Make, source: Path, cache: Path
) -> None:
    scan = cache / "images" / "lung1_0000.nii.gz"
    before = scan.read_bytes()
    (source / "predict.sh").write_text("chmod u+w inputs/*; for i in inputs/*; do echo x>$i; done")
    demo.demonstrate(settings())
    assert scan.read_bytes() == before


def test_a_tree_without_a_submission_is_named(settings: Make, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(EvaluationError, match=r"predict\.sh.*no such script in .*bare"):
        demo.demonstrate(settings(source=tmp_path / "bare"))


@pytest.mark.engine
def test_a_failed_build_is_one_line(
    settings: Make, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "Dockerfile").write_text("FROM scratch\nCOPY nothing-here /\n")
    message = r"docker build failed: .*build\.log\)"
    with pytest.raises(EvaluationError, match=message):
        demo.demonstrate(settings(runner="docker"))
    demo.demonstrate(settings(runner="auto"))
    assert re.search(rf"as a process \({message}", capsys.readouterr().out)


def test_without_an_engine_auto_takes_a_process_and_docker_is_an_error(
    settings: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    demo.demonstrate(settings(runner="auto"))
    assert "as a process (no container engine answers" in capsys.readouterr().out
    with pytest.raises(InfrastructureError, match=r"no container engine answers.*start Docker"):
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
