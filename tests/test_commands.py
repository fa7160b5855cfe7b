"""Every command, whatever happens: one line, an exit code, and the work is done."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
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
ROOMS = ("app", "benchmarks", "evaluation", "examples", "training")


def commands() -> list[str]:
    """The modules of all rooms that read a command line."""
    found = []
    for file in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        text = file.read_text()
        if '__name__ == "__main__"' in text and re.search("argparse|command_line", text):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            found.append(module.removesuffix(".__main__"))
    return sorted(found)


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


# What a module that is imported does; the process gets the signal while that goes on.
MOMENTS = {
    "between two lines": "os.kill(os.getpid(), number)",
    "within a library, which makes another error of it": """
try:
    os.kill(os.getpid(), number)
except BaseException:
    raise ImportError("the library is broken") from None
""",
    "within a library that does not come back": """
import ctypes
mutex = ctypes.create_string_buffer(256)
os.write(1, b'here\\n')
for _ in range(2):
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
""",
}


def import_of(module: str, code: str, number: signal.Signals, folder: Path) -> Mapping[str, str]:
    """The environment of a process in which the import of a module is what the code does."""
    head = f"import os, signal\nnumber = {int(number)}\n"
    (folder / f"{module}.py").write_text(head + code)
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.parametrize("command", commands())
def test_an_interrupt_is_one_line_before_main_begins(command: str, tmp_path: Path) -> None:
    # It comes while a module is imported that each of them imports.
    code = MOMENTS["between two lines"]
    done = start(command, env=import_of("argparse", code, signal.SIGINT, tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_ends_the_app_whatever_it_is_at(moment: str, tmp_path: Path) -> None:
    environment = import_of("numpy", MOMENTS[moment], signal.SIGTERM, tmp_path)
    words = [sys.executable, "-m", "app", "--input", "x", "--output", "y"]
    process = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline():  # it is where it stays
            process.terminate()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (128 + signal.SIGTERM, b"terminated\n")


def test_a_part_does_not_outlive_a_process_that_is_ended_at_once(tmp_path: Path) -> None:
    script = tmp_path / "flare-test"  # prepared as our commands are, by its name
    script.write_text(
        "import os, signal, sys, time; from pathlib import Path\n"
        "from volumes import command; from volumes.files import replacing\n"
        "command.prepare(heeded=signal.SIGTERM)\n"
        "with replacing(Path(sys.argv[1])) as part:\n"
        "    part.write_bytes(b'half')\n"
        "    signal.signal(signal.SIGTERM, lambda *_: None)  # as if Python had no turn\n"
        "    print('writes', flush=True)\n"
        "    time.sleep(60)\n"
    )
    (tmp_path / "folder").mkdir()
    words = [sys.executable, str(script), str(tmp_path / "folder" / "mask")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writes\n"
        assert len(names(tmp_path / "folder")) == 1
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert names(tmp_path / "folder") == []


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.15, 0.3, 0.6, 1.0, 1.5, 2.5])
def test_a_signal_at_any_moment_leaves_nothing(
    after_s: float, sound: dict[str, Path], tmp_path: Path
) -> None:
    words = [*app(sound["model"], sound["scan"], tmp_path), "--step-size", "0.003"]
    called = [sys.executable, "-m", *map(str, words)]
    process = subprocess.Popen(called, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        time.sleep(after_s)
        process.terminate()
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert one_line(err.decode()).startswith("terminated")
    assert names(tmp_path) == []


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


@pytest.mark.slow
def test_what_a_killed_app_leaves_is_removed_by_the_next(
    sound: dict[str, Path], tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    words = [*app(sound["model"], sound["scan"], masks), "--step-size", "0.003"]
    with subprocess.Popen([sys.executable, "-m", *map(str, words)], cwd=ROOT) as process:
        while not (masks.is_dir() and names(masks)):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert all(name.startswith(".") for name in names(masks))
    other = tmp_path / "Y.nii.gz"
    other.write_bytes(sound["scan"].read_bytes())
    assert start(*app(sound["model"], other, masks)).returncode == 0
    assert names(masks) == ["Y.nii.gz"]
