"""Apptainer's command lines, and its runner with a stand-in of the program: it was never there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evaluation.cases import find
from evaluation.contracts import FLARE, grand_challenge
from evaluation.errors import EvaluationError
from evaluation.runners import LIMITS, TIMEOUT, InputError, Job
from evaluation.runners.apptainer import (
    ApptainerRunner,
    build_command,
    read_config,
    run_command,
)
from evaluation.staging import stage
from tests.submissions import write_cases

IMAGE, WORK = Path("/tmp/team.sif"), Path("/scratch/a-x1")
CONFIG = {"WorkingDir": "/workspace", "User": "1000", "Cmd": ["sh", "predict.sh"]}
# What the stand-in knows of the real one: its arguments, that nothing of the host's environment
# gets in but APPTAINERENV_, and that the command takes its place.
STAND_IN = """#!{python}
import json, os, sys
arguments = sys.argv[1:]
with open({record!r}, "a") as file:
    print(json.dumps(arguments), file=file)
if arguments[0] == "--version":
    print("apptainer version 1.2.5")
elif arguments[0] == "build":
    open(arguments[1], "x").close()
else:
    os.chdir(arguments[arguments.index("--workdir") + 1])
    with open("predict.sh", "w") as file:
        file.write(". inputs/script")
    kept = {{name.removeprefix("APPTAINERENV_"): value for name, value in os.environ.items()
            if name.startswith("APPTAINERENV_")}}
    image = next(i for i, word in enumerate(arguments) if word.endswith(".sif"))
    os.execvpe(arguments[image + 1], arguments[image + 1:], {{**kept, "PATH": os.environ["PATH"]}})
"""


def save(
    path: Path, config: Mapping[str, Any] = CONFIG, changes: Mapping[str, bytes] | None = None
) -> Path:
    """Write what `docker save | gzip` does of an image, without its layers' content."""
    files = {
        "layer.tar": bytes(2**21),
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["team:latest"]}]).encode(),
        "c.json": json.dumps({"architecture": "amd64", "config": config}).encode(),
        **(changes or {}),
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_flares_command_line() -> None:
    command = run_command(
        IMAGE, WORK, LIMITS["sandbox"], FLARE, "GPU-1", folder="/workspace", can_limit=True
    )
    assert shlex.join(command) == (
        "apptainer exec --compat --no-home --workdir /scratch/a-x1 --pwd /workspace"
        " --mount type=bind,source=/scratch/a-x1/inputs,destination=/workspace/inputs,ro"
        " --mount type=bind,source=/scratch/a-x1/outputs,destination=/workspace/outputs"
        " --net --network none --no-privs --memory 28672M --memory-swap 28672M --pids-limit 4096"
        " --nv --env CUDA_VISIBLE_DEVICES=GPU-1 /tmp/team.sif /bin/bash -c 'sh predict.sh'"
    )


def test_the_organisers_profile_limits_memory_alone() -> None:
    command = run_command(
        IMAGE, WORK, LIMITS["flare"], FLARE, None, folder="/workspace", can_limit=True
    )
    assert shlex.join(command) == (
        "apptainer exec --compat --no-home --workdir /scratch/a-x1 --pwd /workspace"
        " --mount type=bind,source=/scratch/a-x1/inputs,destination=/workspace/inputs"
        " --mount type=bind,source=/scratch/a-x1/outputs,destination=/workspace/outputs"
        " --memory 28672M /tmp/team.sif /bin/bash -c 'sh predict.sh'"
    )


def test_grand_challenges_command_line_is_the_images_own() -> None:
    command = run_command(
        IMAGE, WORK, LIMITS["sandbox"], grand_challenge(), None, folder="/opt", can_limit=False
    )
    assert shlex.join(command) == (
        "apptainer run --compat --no-home --workdir /scratch/a-x1 --pwd /opt"
        " --mount type=bind,source=/scratch/a-x1/inputs,destination=/input,ro"
        " --mount type=bind,source=/scratch/a-x1/outputs,destination=/output"
        " --net --network none --no-privs /tmp/team.sif"
    )


def test_a_path_with_a_separator_is_quoted_as_csv() -> None:
    command = run_command(
        IMAGE, Path('/a:b,c"d'), LIMITS["sandbox"], FLARE, None, folder="/", can_limit=False
    )
    assert command[command.index("--mount") + 1] == (
        'type=bind,"source=/a:b,c""d/inputs",destination=/workspace/inputs,ro'
    )


def test_an_archive_is_built_from_as_it_is() -> None:
    assert build_command(Path("/in/team.tar.gz"), IMAGE) == [
        *("apptainer", "build", "/tmp/team.sif", "docker-archive:/in/team.tar.gz"),
    ]


def test_the_configuration_of_an_archive_is_read(tmp_path: Path) -> None:
    config, digest = read_config(save(tmp_path / "team.tar.gz"))
    assert config == CONFIG
    assert digest.startswith("sha256:")
    assert read_config(save(tmp_path / "other.tar.gz", {"WorkingDir": "/"}))[1] != digest


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest.json": b"[]"},
        {"manifest.json": b'[{"Config": "c.json"}, {"Config": "c.json"}]'},
        {"manifest.json": b'[{"Config": "absent.json"}]'},
        {"manifest.json": b"no JSON"},
        {"c.json": b"[1]"},
        {"c.json": b"{}"},
    ],
)
def test_what_is_no_archive_of_an_image_is_named(tmp_path: Path, changes: dict[str, bytes]) -> None:
    path = save(tmp_path / "team.tar.gz", changes=changes)
    with pytest.raises(InputError, match=r"team\.tar\.gz: not an archive of one image"):
        read_config(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def gone(path: Path) -> None:
    path.unlink()


def other(path: Path) -> None:
    path.write_bytes(b"no archive")


@pytest.mark.parametrize("spoil", [cut, gone, other])
def test_a_damaged_archive_is_named(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = save(tmp_path / "team.tar.gz")
    spoil(path)
    with pytest.raises(InputError, match=r"team\.tar\.gz: (not an archive|cannot be read)"):
        read_config(path)


class Place:
    """A team's archive and the stand-in, which notes how it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = save(folder / "team.tar.gz")
        self.record = folder / "calls"
        program = folder / "bin" / "apptainer"
        program.parent.mkdir()
        program.write_text(STAND_IN.format(python=sys.executable, record=str(self.record)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.path = f"{program.parent}:{os.environ['PATH']}"

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.record.read_text().splitlines()]

    def runner(self) -> ApptainerRunner:
        limits = replace(LIMITS["sandbox"], memory_mib=256)
        return ApptainerRunner(self.archive, limits, "GPU-1", dict(os.environ), FLARE)

    def job(self, script: str, timeout_s: float = 20.0) -> Job:
        (case,) = find(write_cases(self.folder, ["a"])[0])
        work = self.folder / "work"
        work.mkdir()
        stage(case, work)
        (work / "inputs" / "script").write_text(script + "\n")
        return Job("a", work, timeout_s, lambda: None)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setenv("PATH", made.path)
    monkeypatch.setenv("SECRET", "of the host")
    return made


def test_a_case_is_run_as_a_process(place: Place) -> None:
    with contextlib.closing(place.runner()) as runner:
        outcome = runner.run(place.job('echo "$SECRET."; ls inputs; touch outputs/x; exit 7'))
        described = runner.describe()
    assert (outcome.exit_code, outcome.stopped) == (7, None)
    assert outcome.log.split() == [".", "a_0000.nii.gz", "script"]
    assert (place.folder / "work" / "outputs" / "x").exists()
    version, build, run = place.calls()
    assert (version, build[0], run[0]) == (["--version"], "build", "exec")
    assert build[2] == f"docker-archive:{place.archive}"
    assert build[1] in run
    assert run[run.index("--env") + 1] == "CUDA_VISIBLE_DEVICES=GPU-1"
    assert not Path(build[1]).exists()
    assert described["engine"] == "apptainer version 1.2.5"
    assert str(described["image_digest"]).startswith("sha256:")


def test_a_case_that_takes_too_long_is_ended(place: Place) -> None:
    with contextlib.closing(place.runner()) as runner:
        outcome = runner.run(place.job("setsid sleep 543.2 & sleep 543.2", timeout_s=0.5))
    assert (outcome.exit_code, outcome.stopped) == (None, TIMEOUT)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "sleep 543.2" not in listed.stdout


def test_a_failed_build_is_told_and_leaves_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (place.folder / "bin" / "apptainer").write_text("#!/bin/sh\necho FATAL: no space; exit 255\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InputError, match=r"team\.tar\.gz: apptainer --version failed: FATAL"):
        place.runner()
    script = '#!/bin/sh\n[ "$1" = --version ] || { echo FATAL: no space; exit 255; }\n'
    (place.folder / "bin" / "apptainer").write_text(script)
    with pytest.raises(InputError, match=r"team\.tar\.gz: apptainer build failed: FATAL: no space"):
        place.runner()
    assert list(tmp_path.glob("flare-apptainer-*")) == []


def test_without_the_program_that_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="needs the program apptainer, and it is not on PATH"):
        place.runner()


def test_an_image_that_breaks_its_contract_is_refused(place: Place) -> None:
    save(place.archive, CONFIG | {"User": "root"})
    with pytest.raises(EvaluationError, match="runs as root"):
        ApptainerRunner(place.archive, LIMITS["sandbox"], None, dict(os.environ), grand_challenge())
