"""Signals, at any moment of any command: one line, an exit code, and nothing is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.app.conftest import scan
from tests.app.small_model import write_model
from tests.nnunet_models import ROOT
from tests.test_commands import app, names, one_line, start

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


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What is read in the tests, and changed in none."""
    folder = tmp_path_factory.mktemp("sound")
    return {"model": write_model(folder / "tiny"), "scan": scan(folder / "X_0000.nii.gz")}


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
        "command.prepare(__name__, heeded=signal.SIGTERM)\n"
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


def heeds(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether the process has come to where it does more about a signal than to end."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.5])
def test_a_signal_at_any_moment_leaves_nothing(
    after_s: float, sound: dict[str, Path], tmp_path: Path
) -> None:
    words = [*app(sound["model"], sound["scan"], tmp_path), "--step-size", "0.003"]
    called = [sys.executable, "-m", *map(str, words)]
    process = subprocess.Popen(called, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        while not heeds(process, signal.SIGTERM):
            time.sleep(0.001)
        time.sleep(after_s)
        process.terminate()
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert one_line(err.decode()).startswith("terminated")
    assert names(tmp_path) == []


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


def test_a_program_of_somebody_elses_keeps_its_own_ways(tmp_path: Path) -> None:
    """Its package imports the app while Python looks for what -m names."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("import app, evaluation, training\n")
    (tmp_path / "pipeline" / "__main__.py").write_text(
        "import signal, sys\n"
        "print(type(sys.stdout).__name__, signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    command = [sys.executable, "-m", "pipeline", "app"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "TextIOWrapper True\n"
