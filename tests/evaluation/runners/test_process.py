"""What processes alone need watching for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.runners import (
    LOG_BYTES,
    cgroup,
    end_of,
    owner,
)
from evaluation.runners.process import OWNER_VARIABLE, _Tail
from evaluation.runners.processes import with_variable
from tests.evaluation.runners.scripts import Scripts


def test_a_command_finds_the_python_that_runs_the_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    outcome = Scripts("process", None, tmp_path).run("command -v python; command -v env")
    assert outcome.log.split() == [str(Path(sys.executable).parent / "python"), "/usr/bin/env"]


def test_without_control_groups_memory_is_still_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup, "create", lambda name: None)
    scripts = Scripts("process", None, tmp_path)
    outcome = scripts.run("x=$(head -c 40M /dev/zero | tr '\\0' x); sleep 0.5")
    assert outcome.exit_code == 0
    assert outcome.peak_ram_mib is not None
    assert 40 <= outcome.peak_ram_mib <= 128
    assert "cgroup" not in outcome.measured_by
    hog = scripts.run("x=$(head -c 200M /dev/zero | tr '\\0' x); sleep 100")
    assert hog.stopped == "memory"
    assert owner.token() not in with_variable(OWNER_VARIABLE).values()


def test_a_log_that_was_let_go_in_part_starts_with_a_whole_line() -> None:
    line = b"0123456789\n"
    for more in range(len(line)):  # wherever the last cut fell
        said = b"x" * more + line * (4 * LOG_BYTES // len(line) + 1)
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        tail = _Tail(process)
        assert process.stdin is not None
        process.stdin.write(said)
        process.stdin.close()
        assert tail.text().startswith("0123456789\n")
        process.wait()


@pytest.mark.parametrize("size", [0, 10, LOG_BYTES, LOG_BYTES + 1])
def test_a_log_is_cut_at_the_start_of_a_line(size: int) -> None:
    log = (b"0123456789\n" * (size // 11 + 1))[-size:] if size else b""
    kept = end_of(log)
    assert len(kept) <= LOG_BYTES
    assert log.decode().endswith(kept)
    if size > LOG_BYTES:
        assert kept.startswith("0123456789\n")
