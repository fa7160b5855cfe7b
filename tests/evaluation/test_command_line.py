"""What the command line says to misuse: one line, whatever it is, and to Ctrl-C."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evaluation.__main__ import main
from evaluation.pictures import drawing
from tests import engine
from tests.submissions import (
    BEHAVIOURS,
    HEEDING,
    SHAPE,
    Behaviour,
    lesion,
    save,
    write_cases,
    write_submission,
)

NOWHERE = "unix:///nowhere/docker.sock"
# Of each command, for the cases a and b, without the submission.
FOLDERS = {
    "run": "--cases {0}/scans --labels {0}/labels --output {0}/out --gpu none",
    "bench": "--scans {0}/scans --repeat 1 --gpu none",
    "score": "--predictions {0}/labels --labels {0}/labels --output {0}/out",
    "batch": "--cases {0}/scans --labels {0}/labels --output {0}/out",
}


class Place:
    """A folder with cases and a good submission, in which the command line is used."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.output = folder, folder / "out"
        self.scans, self.labels = write_cases(folder, ["a", "b"])
        good = BEHAVIOURS["good"]
        write_submission(folder / "submission", {"a": good, "b": good})
        self._capsys = capsys

    def call(self, words: str) -> tuple[int, str, str]:
        """Return exit code, stdout and stderr; {0} is the folder, and quotes hold words together.

        FOLDERS go before the words, which change what they say.
        """
        command, *rest = [word.format(self.folder) for word in split(words)]
        given = [word.format(self.folder) for word in FOLDERS.get(command, "").split()]
        code: object
        try:
            code = main([command, *given, *rest])
        except SystemExit as error:
            code = error.code
        assert isinstance(code, int)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def refused(self, words: str) -> str:
        """Return the one line that says what is wrong; nothing else may have been done."""
        code, out, said = self.call(words)
        assert out == ""
        *usage, line = said.splitlines()
        assert code == (2 if usage else 1)
        assert all(one.startswith(("usage: ", " ")) for one in usage)  # as argparse has it
        assert "error: " in line
        assert not (self.output / "cases").exists()
        assert not (self.output / "scores.csv").exists()
        return line


def split(words: str) -> list[str]:
    return [
        word
        for i, part in enumerate(words.split("'"))
        for word in ([part] if i % 2 else part.split())
    ]


@pytest.fixture
def place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Place:
    made = Place(tmp_path, capsys)
    monkeypatch.chdir(tmp_path / "submission")
    return made


PROCESS = "--command 'sh predict.sh'"
MISUSE = {
    # How a submission is named.
    "run": "one of the arguments --image --archive --command is required",
    f"run {PROCESS} --image x": "not allowed with argument",
    "run --command 'sh absent.sh'": "--command 'sh absent.sh': no such script in {0}/submission",
    "bench --command 'sh absent.sh'": "no such script in {0}/submission",
    "run --command './absent.sh'": "no such script in {0}/submission",
    "run --command ''": "no such script in {0}/submission",
    """run --command 'sh "predict.sh'""": "No closing quotation",
    # Challenges.
    f"run {PROCESS} --challenge autopet": "autopet calls an image's entry point: build an image",
    "run --image x --challenge autopet": "has 1 channel(s), and there are 2 socket(s)",
    f"run {PROCESS} --challenge flare22": "argument --challenge: flare22: no such file, and no ch",
    "bench --image x --challenge {0}/file": "argument --challenge: {0}/file: not a challenge: Obj",
    "score --challenge flare22": "argument --challenge: flare22: no such file, and no challenge of",
    # Folders and files.
    f"run {PROCESS} --cases {{0}}/absent": "{0}/absent: no such folder",
    f"run {PROCESS} --labels {{0}}/absent": "{0}/absent: no such folder",
    f"run {PROCESS} --labels {{0}}/empty": "{0}/empty: lacks a.nii.gz, b.nii.gz",
    f"run {PROCESS} --cases {{0}}/empty": "{0}/empty: holds no .nii.gz file",
    f"run {PROCESS} --output {{0}}/file": "{0}/file",
    f"run {PROCESS} --output {{0}}/file/below": "{0}/file/below",
    f"run {PROCESS} --output /proc/below": "/proc/below",
    f"bench {PROCESS} --scans {{0}}/absent": "{0}/absent: no such folder",
    f"bench {PROCESS} --scans {{0}}/file": "{0}/file: shorter than a NIfTI header",
    "score --predictions {0}/absent": "{0}/absent: no such folder",
    "score --labels {0}/absent": "{0}/absent: no such folder",
    "score --labels {0}/empty": "{0}/empty: holds no .nii.gz file",
    "score --output {0}/file": "{0}/file",
    # Numbers and names.
    "batch x --slots 0": "argument --slots: 0: must be above 0",
    "batch x --scorers -1": "argument --scorers: '-1': not a whole number from 0 on",
    "batch x --image-limit 0": "argument --image-limit: 0: must be above 0",
    f"run {PROCESS} --interval 0": "argument --interval: 0: must be above 0",
    f"run {PROCESS} --timeout -5": "argument --timeout: -5: must be above 0",
    f"run {PROCESS} --timeout nan": "argument --timeout: nan: must be above 0",
    f"run {PROCESS} --timeout soon": "argument --timeout: 'soon': not a number",
    f"run {PROCESS} --memory 0": "argument --memory: 0: must be above 0",
    f"run {PROCESS} --memory 28G": "argument --memory: '28G': not a whole number",
    f"bench {PROCESS} --repeat 0": "argument --repeat: 0: must be above 0",
    f"bench {PROCESS} --repeat 1.5": "argument --repeat: '1.5': not a whole number",
    f"run {PROCESS} --gpu GPU-absent": "GPU GPU-absent is not here: ",
    f"bench {PROCESS} --gpu GPU-absent": "GPU GPU-absent is not here: ",
    f"run {PROCESS} --sandbox open": "argument --sandbox: invalid choice: 'open'",
    "judge": "invalid choice: 'judge' (choose from 'run', 'batch', 'rank', 'report',"
    " 'score', 'bench')",
}


@pytest.mark.parametrize("words", MISUSE)
def test_misuse_is_one_line(place: Place, words: str) -> None:
    (place.folder / "empty").mkdir()
    (place.folder / "file").touch()
    assert MISUSE[words].format(place.folder) in place.refused(words)


@pytest.mark.parametrize(
    ("words", "now"),
    [
        (f"run {PROCESS} --scoring flare23", "--scoring is replaced by --challenge NAME"),
        ("score --scoring=flare23", "--scoring is replaced by --challenge NAME"),
        ("bench --image x --contract flare", "--contract is replaced by --challenge NAME"),
        (
            "run --image x --input-socket ct",
            "--input-socket is replaced by input_sockets in a --ch",
        ),
        ("run --image x --output-socket a", "--output-socket is replaced by output_socket in a"),
        (f"bench {PROCESS} --profile sandbox", "--profile is replaced by --sandbox on, or off"),
        ("batch x --profile flare", "--profile is replaced by --sandbox on, or off"),
        ("rank x --profile flare24-without-gpu", "--profile is replaced by --challenge NAME"),
        ("run --runner process", "--runner is replaced by --command"),
    ],
)
def test_an_option_of_earlier_versions_names_the_new_one(
    place: Place, words: str, now: str
) -> None:
    code, out, said = place.call(words)
    assert (code, out) == (2, "")
    assert said.startswith(f"error: {now}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("submission", ["--image x", "--archive {0}/labels/a.nii.gz"])
@pytest.mark.parametrize("command", ["run", "bench"])
def test_without_an_engine_that_is_said_with_the_remedy(
    place: Place, monkeypatch: pytest.MonkeyPatch, command: str, submission: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    said = place.refused(f"{command} {submission}")
    assert said.startswith("error: no container engine answers (")
    assert "start Docker, or set DOCKER_HOST" in said


@pytest.mark.engine
@pytest.mark.parametrize("command", ["run", "bench"])
def test_an_image_or_archive_that_is_not_there_is_named(place: Place, command: str) -> None:
    said = place.refused(f"{command} --image flare-test-absent")
    assert said == "error: flare-test-absent: the engine has no such image; build or load it"
    assert "repository name must be lowercase" in place.refused(f"{command} --image Upper")
    said = place.refused(f"{command} --archive {{0}}/team.tar.gz")
    assert said == f"error: {place.folder}/team.tar.gz: cannot be read (No such file or directory)"
    (place.folder / "team.tar.gz").write_text("no archive")
    said = place.refused(f"{command} --archive {{0}}/team.tar.gz")
    finding = "no tar, or a damaged one; save it with docker save"
    assert said == f"error: {place.folder}/team.tar.gz: {finding}"


@pytest.mark.engine
def test_an_archive_with_another_teams_image_is_told_which(place: Place) -> None:
    image = engine.build_text("FROM scratch\nCOPY Dockerfile /\n")
    try:
        engine.docker("save", "--output", place.folder / "team.tar", f"{image.name}:latest")
        said = place.refused("run --archive {0}/team.tar")
    finally:
        engine.remove_image(image)
    assert f"{image.name}:latest, expected team:latest like the archive" in said


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def relabel(path: Path) -> None:
    save(path, lesion() * 3)


def shrink(path: Path) -> None:
    save(path, lesion()[:-1])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (truncate, "truncated"),
        (relabel, "holds labels from 0 to 3; allowed are 0 to 1"),
        (shrink, f"has (23, 20, 10) voxels (x, y, z), its scan {{}} has {SHAPE}"),
        (Path.unlink, "b.nii.gz"),
    ],
)
def test_a_reference_that_cannot_be_used_is_found_before_anything_runs(
    place: Place, spoil: Callable[[Path], None], says: str
) -> None:
    spoil(place.labels / "b.nii.gz")
    said = place.refused(f"run {PROCESS}")
    assert str(place.labels) in said
    assert says.format(place.scans / "b_0000.nii.gz") in said


def test_a_damaged_record_stops_a_resumed_run_until_it_is_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "draw", lambda *_: [])  # which takes seconds
    assert place.call(f"run {PROCESS}")[0] == 0
    record = place.output / "cases" / "b.json"
    record.write_text("{")
    code, _, said = place.call(f"run {PROCESS} --resume")
    assert code == 1
    assert said.startswith(f"error: {record}: not a record of this version (")
    assert said.endswith("remove it to run the case again\n")
    assert said.count("\n") == 1
    record.unlink()
    code, out, said = place.call(f"run {PROCESS} --resume")
    assert (code, said) == (0, "")
    assert out.count("from an earlier run") == 1


# The first two cases are done when the third, which takes its time, is interrupted.
SLOW = Behaviour("ok", f"sleep 6; {BEHAVIOURS['good'].script}", make=BEHAVIOURS["good"].make)
RUNNERS = [pytest.param("docker", marks=pytest.mark.engine), "process"]


@pytest.fixture(params=RUNNERS)
def interrupted(request: pytest.FixtureRequest, place: Place) -> Iterator[list[str]]:
    """The options that name the submission."""
    shutil.rmtree(place.folder / "submission")
    good = BEHAVIOURS["good"]
    source = write_submission(place.folder / "submission", {"a": good, "b": good, "slow": SLOW})
    write_cases(place.folder, ["slow"])
    if request.param == "process":
        yield ["--command", "sh predict.sh"]
        return
    image = engine.build_image(source)
    yield ["--image", image.name]
    engine.remove_image(image)


def states(output: Path) -> dict[str, str]:
    with (output / "results.csv").open() as file:
        return {row["case"]: row["status"] for row in csv.DictReader(file)}


def start(place: Place, options: list[str]) -> subprocess.Popen[str]:
    command = [word.format(place.folder) for word in FOLDERS["run"].split()]
    return subprocess.Popen(
        [*HEEDING, sys.executable, "-m", "evaluation", "run", *command, *options],
        cwd=place.folder / "submission",
        env={**os.environ, "PYTHONPATH": str(engine.ROOT), "TMPDIR": str(place.folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_running(place: Place) -> list[str]:
    """The processes of submissions that this test has started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "cwd").readlink()).startswith(str(place.folder / "flare-")):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_measured_and_the_run_can_be_resumed(
    place: Place, interrupted: list[str], number: signal.Signals
) -> None:
    run = start(place, interrupted)
    for _ in range(6000):
        if list(place.folder.glob("flare-*/*/*/inputs/slow*")) or run.poll() is not None:
            break
        time.sleep(0.01)
    time.sleep(1.5)  # the submission has started by now
    os.killpg(run.pid, number)  # as a terminal sends it, to the whole group
    _, said = run.communicate(timeout=30)
    assert run.returncode == 130
    assert said == "interrupted; what was measured is kept, see --resume\n"
    assert states(place.output) == {"a": "ok", "b": "ok"}
    assert "Summary of 2 cases." in (place.output / "tables.md").read_text()
    assert list(place.folder.glob("flare-*/run-*")) == []
    assert left_running(place) == []
    if interrupted[0] == "--image":
        of_image = ["ps", "--all", "--quiet", "--filter", f"ancestor={interrupted[1]}"]
        assert engine.docker(*of_image).stdout == ""
    again = start(place, [*interrupted, "--resume"])
    out, said = again.communicate(timeout=60)
    assert (again.returncode, said) == (0, "")
    assert out.count("from an earlier run") == 2
    assert states(place.output) == {"a": "ok", "b": "ok", "slow": "ok"}
