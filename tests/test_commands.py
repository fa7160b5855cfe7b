"""Every command, whatever happens: one line, an exit code, and the work is done."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.app.conftest import scan
from tests.app.small_model import write_model
from tests.evaluation.ranking.results_folder import record, write_team
from tests.nnunet_models import ROOT
from tests.submissions import HEEDING, lesion, save
from tests.training.trained_folder import write_trained

LONGEST = 300  # characters of a line on what is wrong


# What each is asked to read, at the places of {bad}; what else it needs is sound.
READERS = {
    "app, a scan": "app --device cpu --model {model} --input {bad} --output {output}",
    "app, a model": "app --device cpu --model {bad} --input {scan} --output {output}",
    "run": "evaluation run --command true --cases {bad} --labels {bad} --output {output}",
    "batch": "evaluation batch {bad} --cases {bad} --labels {bad} --output {output}",
    "rank": "evaluation rank {bad}",
    "report": "evaluation report {bad}",
    "score": "evaluation score --predictions {bad} --labels {bad} --output {output}",
    "bench": "evaluation bench --command true --scans {bad}",
    "worker": "evaluation.batch.worker tls://127.0.0.1:1 --certificates {bad}",
    "card": "training.card {bad}",
    "crops": "training.crops --data {bad} --output {output}",
    "export": "training.export {bad} --output {output}",
    "lesion filter": "training.lesion_filter {bad} --data {bad}",
    "prepare": "training.prepare cpu-small --data {bad} --output {output}",
    "recipes": "training.recipes {bad}",
    "train": "training.train cpu-small --data {bad} --output {output}",
}
ODD = {
    "not UTF-8": os.fsdecode(b"\xff\xfe"),
    "for a terminal to act on": "a\x1b[31m\rb\nerror: \u202e\x9b",
}
NAMES = {"missing": "missing", "too long": "n" * 300, **ODD}


def a_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def a_circle(path: Path) -> None:
    path.symlink_to(path.name)


def deep_json(path: Path) -> None:
    path.mkdir()
    (path / "team").mkdir()
    names = ("model.json", "summary.json", "plans.json", "dataset.json", "prepared.json")
    for name in (*names, "team/submission.json"):
        (path / name).write_text("[" * 100_000)


def no_folder(path: Path) -> None:
    path.write_bytes(b"\0" * 1000)


MADE = {f.__name__.replace("_", " "): f for f in (a_dangling_link, a_circle, deep_json, no_folder)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What is read in the tests, and changed in none."""
    folder = tmp_path_factory.mktemp("sound")
    write_trained(folder / "trained")
    save(folder / "masks" / "X.nii.gz", lesion())
    write_team(folder / "results", "team", [record("a"), record("b")])
    return {
        "model": write_model(folder / "tiny"),
        "scan": scan(folder / "X_0000.nii.gz"),
        **{name: folder / name for name in ("trained", "masks", "results")},
    }


def one_line(text: str) -> str:
    """The one line of a text, which a terminal can print."""
    assert text.endswith("\n")
    line = text.removesuffix("\n")
    assert line.isprintable(), line
    assert len(line) <= LONGEST, line
    return line


def ask(asked: str, **places: object) -> int:
    """The exit code of a command in this process."""
    name, *words = (word.format(**places) for word in asked.split(" "))
    file = (ROOT / name.replace(".", "/")).with_suffix(".py")
    module = importlib.import_module(name if file.is_file() else f"{name}.__main__")
    code: int = module.main(words)
    return code


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [*NAMES, *MADE])
def test_what_cannot_be_read_is_one_line(
    name: str,
    reader: str,
    sound: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / NAMES.get(name, "bad")
    MADE.get(name, lambda path: None)(bad)
    assert ask(READERS[reader], bad=bad, output=tmp_path / "output", **sound) == 1
    assert one_line(capsys.readouterr().err).startswith("error: ")


def start(
    *words: object,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    env: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command."""
    called = [*HEEDING, sys.executable, "-m", *map(str, words)]
    return subprocess.run(called, stdout=stdout, stderr=stderr, env=env, cwd=ROOT, check=False)


@pytest.mark.parametrize("reader", ["app, a scan", "app, a model", "score", "rank", "export"])
@pytest.mark.parametrize("inside", ["", "/inside"])
def test_a_folder_that_may_not_be_entered_is_one_line(
    inside: str, reader: str, sound: dict[str, Path], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    asked = READERS[reader].format(bad=f"{closed}{inside}", output=tmp_path / "output", **sound)
    rights = "-dac_override,-dac_read_search"  # with which root enters everything
    drop = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    words = [*(drop if os.geteuid() == 0 else ()), sys.executable, "-m", *asked.split(" ")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1
    line = one_line(done.stderr.decode())
    assert line.startswith(f"error: {closed}")
    assert "Permission denied" in line


@contextlib.contextmanager
def nobody_reads() -> Iterator[int]:
    end, descriptor = os.pipe()
    os.close(end)
    yield descriptor
    os.close(descriptor)


@contextlib.contextmanager
def a_full_disk() -> Iterator[int]:
    with Path("/dev/full").open("w") as full:
        yield full.fileno()


MASKS = {
    "plain": "X",
    "as long as can be": "n" * 248,
    **ODD,
}


@pytest.fixture(scope="module")
def scans(sound: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scan under odd names."""
    folder = tmp_path_factory.mktemp("scans")
    for name in MASKS.values():
        (folder / f"{name}.nii.gz").write_bytes(sound["scan"].read_bytes())
    return folder


def app(model: Path, scans: Path, output: Path) -> tuple[object, ...]:
    return "app", "--device", "cpu", "--model", model, "--input", scans, "--output", output


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_are_printed_one_a_line(
    encoding: str, sound: dict[str, Path], scans: Path, tmp_path: Path
) -> None:
    done = start(
        *app(sound["model"], scans, tmp_path), env={**os.environ, "PYTHONIOENCODING": encoding}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    ready, *lines = done.stdout.decode(encoding).splitlines()
    assert ready.startswith("model tiny")
    assert len(lines) == len(MASKS)
    assert all(line.isprintable() and " -> " in line for line in lines)
    assert names(tmp_path) == names(scans)


@pytest.mark.parametrize("gone", [nobody_reads, a_full_disk])
def test_masks_are_written_though_nothing_can_be_printed(
    gone: Callable[[], contextlib.AbstractContextManager[int]],
    sound: dict[str, Path],
    scans: Path,
    tmp_path: Path,
) -> None:
    with gone() as descriptor:
        done = start(*app(sound["model"], scans, tmp_path), stdout=descriptor, stderr=descriptor)
    assert done.returncode == 0
    assert names(tmp_path) == names(scans)


def test_masks_are_written_by_a_process_without_open_files(
    sound: dict[str, Path], scans: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", *map(str, app(sound["model"], scans, tmp_path))]
    script = f"exec {shlex.join(words)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", script], cwd=ROOT, check=False).returncode == 0
    assert names(tmp_path) == names(scans)
    assert all((tmp_path / name).read_bytes()[:2] == b"\x1f\x8b" for name in names(scans))


@pytest.mark.parametrize("gone", [nobody_reads, a_full_disk])
def test_a_run_goes_on_though_nothing_can_be_printed(
    gone: Callable[[], contextlib.AbstractContextManager[int]],
    sound: dict[str, Path],
    tmp_path: Path,
) -> None:
    (tmp_path / "predict.sh").write_text("cp $mask outputs/")
    words = ["run", "--command", "sh predict.sh", "--gpu", "none", "--output", tmp_path / "results"]
    folders = ["--cases", sound["masks"], "--labels", sound["masks"]]
    variables = {"PYTHONPATH": str(ROOT), "mask": str(sound["masks"] / "X.nii.gz")}
    with gone() as descriptor:
        done = subprocess.run(
            [sys.executable, "-m", "evaluation", *map(str, (*words, *folders))],
            cwd=tmp_path,
            env={**os.environ, **variables},
            stdout=descriptor,
            stderr=descriptor,
            check=False,
        )
    assert done.returncode == 0
    assert (tmp_path / "results" / "results.csv").read_text().count("X,ok,1.0") == 1


@pytest.mark.parametrize("command", ["app", "evaluation", "training.recipes"])
def test_help_that_nobody_reads_is_no_error(command: str) -> None:
    with a_full_disk() as full:
        done = start(command, "--help", stdout=full)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_scan_that_cannot_be_read_is_named_and_spares_the_others(
    sound: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    a_dangling_link(folder / "a.nii.gz")
    a_circle(folder / "b.nii.gz")
    (folder / "c.nii.gz").symlink_to(sound["scan"])
    os.mkfifo(folder / "d.nii.gz")
    (folder / "e.nii.gz").mkdir()  # a folder is no scan, whatever its name
    assert ask(READERS["app, a scan"], bad=folder, output=tmp_path / "masks", **sound) == 1
    assert names(tmp_path / "masks") == ["c.nii.gz"]
    errors = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in errors] == [
        str(folder / f"{name}.nii.gz") for name in "abd"
    ]


# What each writes first, and how many bytes of a file there is room for.
WRITERS = {
    "app": ("app --device cpu --model {model} --input {scan} --output {output}", "X.nii.gz", 400),
    "score": (
        "evaluation score --predictions {masks} --labels {masks} --output {output}",
        "scores.csv",
        100,
    ),
    "rank": ("evaluation rank {results} --output {output}", "ranking.md", 100),
    "export": ("training.export {trained} --output {output}/model", "model", 30_000),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_the_old_file_whole(
    writer: str, sound: dict[str, Path], tmp_path: Path
) -> None:
    asked, file, room = WRITERS[writer]
    old = tmp_path / file
    if writer != "export":  # which replaces nothing
        old.write_bytes(b"old")
    before = names(tmp_path)
    words = (word.format(output=tmp_path, **sound) for word in asked.split(" "))
    limited = ["prlimit", f"--fsize={room}", sys.executable, "-m", *words]
    done = subprocess.run(limited, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1
    line = one_line(done.stderr.decode())
    assert line.startswith(f"error: {tmp_path}")
    assert "File too large" in line
    assert names(tmp_path) == before
    assert writer == "export" or old.read_bytes() == b"old"


def test_a_fault_of_the_program_is_a_line_and_in_development_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    words = [sys.executable, "-m", "training.card", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: KeyError: 'model' \(card\.py:\d+\)", one_line(done.stderr.decode())
    )
    words.insert(1, "-X")
    words.insert(2, "dev")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr


def test_what_a_library_warns_of_is_a_line(tmp_path: Path) -> None:
    script = tmp_path / "flare-test"  # prepared as our commands are, by its name
    script.write_text(
        "import warnings; from volumes import command\n"
        "command.prepare(__name__)\n"
        "warnings.warn('a\\nb\\x1b', stacklevel=1)\n"
    )
    words = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, check=True)
    assert done.stderr.decode() == "warning: a b\N{REPLACEMENT CHARACTER}\n"
