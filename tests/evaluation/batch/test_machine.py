"""Workers of one machine, here in threads and processes, keep out of each other's way."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from evaluation.batch.machine import Machine
from evaluation.scratch import is_free
from tests import engine

HELD_S = 0.3


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def patient() -> None:
    """Waits as long as need be."""


class Holder:
    """Holds something in a thread until it is told to end."""

    def __init__(self, what: AbstractContextManager[object]) -> None:
        self.has, self._end = threading.Event(), threading.Event()

        def hold() -> None:
            with what as self.value:
                self.has.set()
                self._end.wait()

        self._thread = threading.Thread(target=hold, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._end.set()
        self._thread.join()


def test_timed_runs_are_beside_each_other_and_so_is_other_work(machine: Machine) -> None:
    for kind in (machine.timed, machine.undisturbing):
        holders = [Holder(kind(patient)) for _ in range(3)]
        assert all(holder.has.wait(5) for holder in holders)
        for holder in holders:
            holder.end()


@pytest.mark.parametrize(
    ("first", "second"), [("timed", "undisturbing"), ("undisturbing", "timed")]
)
def test_one_kind_waits_for_the_other(machine: Machine, first: str, second: str) -> None:
    kinds: dict[str, Callable[..., AbstractContextManager[None]]] = {
        "timed": machine.timed,
        "undisturbing": machine.undisturbing,
    }
    one = Holder(kinds[first](patient))
    assert one.has.wait(5)
    other = Holder(kinds[second](patient))
    while is_free(machine.folder / "gate.lock"):  # or the late one might be there first
        time.sleep(0.01)
    # Whoever comes now is behind the one that waits, even of the kind that is at work.
    late = Holder(kinds[first](patient))
    assert not other.has.wait(HELD_S)
    assert not late.has.is_set()
    one.end()
    assert other.has.wait(5)
    assert not late.has.wait(HELD_S)
    other.end()
    assert late.has.wait(5)
    late.end()


def test_with_overlap_nobody_waits(machine: Machine) -> None:
    both = machine.when(overlap=True)
    with both.timed(patient), both.undisturbing(patient):
        pass


def test_a_device_is_had_alone_with_an_empty_folder(machine: Machine) -> None:
    with machine.device("GPU-1", patient) as folder:
        (folder / "left").touch()
        (folder / "deep").mkdir()
        other = Holder(machine.device("GPU-1", patient))
        assert not other.has.wait(HELD_S)
        with machine.device("GPU-2", patient) as second:
            assert second != folder
    assert other.has.wait(5)
    assert not folder.exists()
    assert isinstance(other.value, Path)
    assert list(other.value.iterdir()) == []
    other.end()
    assert not other.value.exists()


def test_what_a_killed_worker_held_and_left_is_free_and_cleared(machine: Machine) -> None:
    script = (
        "import pathlib, sys, time; from evaluation.batch.machine import Machine\n"
        f"with Machine(pathlib.Path({str(machine.folder)!r})).device('GPU-1', lambda: None) as f:\n"
        "    (f / 'left').touch(); print(f, flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=engine.ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    assert (left / "left").exists()
    assert not is_free(machine.folder / "GPU-1.lock")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with machine.device("GPU-1", patient) as folder:
        assert list(folder.iterdir()) == []
        assert not left.exists()
