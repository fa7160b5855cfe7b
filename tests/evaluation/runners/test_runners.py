"""Processes, Docker and Podman keep to one contract; see tests/test_harness.py for the rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation.runners import (
    LOG_BYTES,
    MEMORY,
    TIMEOUT,
    Job,
    Outcome,
    cgroup,
    owner,
)
from evaluation.runners.cgroup import Group
from evaluation.runners.process import GROUP_PREFIX
from tests import engine
from tests.evaluation.runners.scripts import SMALL, Scripts

Run = Callable[..., Outcome]
# Of this session alone: another one may be at work beside it.
ENDLESS = f"sleep 987.{os.getpid()}"
OWN_GROUPS = GROUP_PREFIX + owner.token().replace(":", "+")


def is_running(command: str) -> bool:
    """Whether a process has this command line, to the letter."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return command in listed.stdout.splitlines()


def test_a_run_is_timed_and_its_log_is_kept(scripts: Scripts) -> None:
    outcome = scripts.run("echo started; sleep 0.5; echo failed >&2; exit 7")
    assert (outcome.exit_code, outcome.stopped) == (7, None)
    assert sorted(outcome.log.split()) == ["failed", "started"]
    assert outcome.created_s <= outcome.started_s < outcome.finished_s < outcome.removed_s
    assert 0.5 <= outcome.runtime_s < outcome.wall_s


def test_cpu_time_and_memory_are_those_of_all_processes(scripts: Scripts) -> None:
    # Two children of 30 MiB each, alive together (without ":" they would become their sleep), and
    # a second of arithmetic, however long it takes where other programs run.
    hold = "(x=$(head -c 30M /dev/zero | tr '\\0' x); sleep 1; :) &"
    outcome = scripts.run(f"{hold} {hold} (ulimit -t 1; while :; do :; done); wait")
    assert outcome.exit_code == 0
    assert outcome.peak_ram_mib is not None
    assert 60 <= outcome.peak_ram_mib <= 128
    if "memory_mib" in scripts.not_enforced():
        assert (outcome.cpu_s, outcome.measured_by) == (None, "anonymous memory at 5 Hz")
        return
    assert outcome.cpu_s is not None
    assert 0.9 <= outcome.cpu_s <= 3.5
    assert "cgroup" in outcome.measured_by


def test_the_time_limit_ends_everything(scripts: Scripts) -> None:
    outcome = scripts.run(f"(trap '' TERM; {ENDLESS}) & {ENDLESS}", timeout_s=0.5)
    assert (outcome.exit_code, outcome.stopped) == (None, TIMEOUT)
    assert 0.5 <= outcome.runtime_s < outcome.wall_s
    assert not is_running(ENDLESS)


def test_what_a_submission_leaves_running_ends_with_it(scripts: Scripts) -> None:
    outcome = scripts.run(f"setsid {ENDLESS} >/dev/null 2>&1 & echo bye")
    assert outcome.exit_code == 0
    assert not is_running(ENDLESS)


def test_memory_is_limited(scripts: Scripts) -> None:
    outcome = scripts.run("tail /dev/zero; exit $?", timeout_s=5.0)
    if "memory_mib" in scripts.not_enforced():  # but watched
        assert (outcome.exit_code, outcome.stopped) == (None, MEMORY)
        return
    assert outcome.exit_code == 137
    assert outcome.oom_kills
    assert outcome.peak_ram_mib == pytest.approx(SMALL.memory_mib, rel=0.05)


def test_a_line_that_is_written_in_parts_is_kept(scripts: Scripts) -> None:
    outcome = scripts.run(
        "echo first; printf one; sleep 0.1; printf two; sleep 0.1; echo; printf end"
    )
    assert outcome.log == "first\nonetwo\nend"


def test_processes_are_limited(scripts: Scripts) -> None:
    forks = "(i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done)"
    outcome = scripts.run(f"{forks}; sleep 0.3; exit 5")
    assert outcome.exit_code == 5
    if "pids" in scripts.not_enforced():
        assert (outcome.log, outcome.forks_refused) == ("", 0)
        return
    assert "Cannot fork" in outcome.log
    assert outcome.forks_refused > 0
    assert outcome.runtime_s < 5


def test_there_is_no_network(scripts: Scripts) -> None:
    outcome = scripts.run("cat /proc/net/route | tail -n +2; cat /proc/net/dev | grep -c eth")
    assert outcome.log.strip() == "0"


def test_whoever_watches_can_stop_a_run(scripts: Scripts) -> None:
    ticks = 0

    def watch() -> str | None:
        nonlocal ticks
        ticks += 1
        return "enough" if ticks == 20 else None

    outcome = scripts.run("sleep 100", watch=watch)
    assert (outcome.exit_code, outcome.stopped) == (None, "enough")
    assert outcome.runtime_s < 3


def test_an_error_in_watching_leaves_nothing_behind(scripts: Scripts) -> None:
    def watch() -> str | None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scripts.run(ENDLESS, watch=watch)
    assert not is_running(ENDLESS)


def test_a_submission_that_has_half_entered_its_groups_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = cgroup.create("flare-probe")
    if probe is None:
        pytest.skip("no right to control groups")
    probe.end()
    scripts = Scripts("process", None, tmp_path)
    blocked = tmp_path / "blocked"
    os.mkfifo(blocked)  # whoever writes here waits for a reader that never comes
    monkeypatch.setattr(Group, "entrances", lambda group: [group.memory / "cgroup.procs", blocked])

    def watch() -> str | None:
        if any(group.members() for group in cgroup.existing(OWN_GROUPS)):
            raise KeyboardInterrupt
        return None

    with pytest.raises(KeyboardInterrupt):
        scripts.run("true", watch=watch)
    assert not cgroup.existing(OWN_GROUPS)


def test_of_a_chatty_submission_the_end_is_kept(scripts: Scripts) -> None:
    outcome = scripts.run("seq 1 400000")
    assert outcome.log.endswith("\n400000\n")
    assert len(outcome.log) <= LOG_BYTES
    first = int(outcome.log.splitlines()[0])
    # Podman 4 loses the end of a line here and there.
    kept = outcome.log.replace("\n", "")
    assert kept == "".join(str(n) for n in range(first, 400001))


def test_the_sandbox_says_what_it_enforces(scripts: Scripts) -> None:
    not_enforced = scripts.not_enforced()
    assert ("capabilities" in not_enforced) == (scripts.kind == "process")
    if scripts.kind == "container":
        assert not_enforced == (["pids", "memory_mib", "swap"] if engine.drops_limits() else [])


def test_another_runs_processes_are_not_owned(scripts: Scripts) -> None:
    runner = scripts.runner()
    seen: list[tuple[bool, bool]] = []

    def watch() -> str | None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                name = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                group = (process / "cgroup").read_text()
                session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
            except OSError:
                continue
            if name.startswith((b"sleep 43.2", b"sleep 54.3")):
                seen.append((name.startswith(b"sleep 43.2"), runner.owns(group, session)))
        return "seen" if any(mine for mine, _ in seen) else None

    stranger = subprocess.Popen(["sleep", "54.3"], start_new_session=True)
    try:
        runner.run(Job("a", scripts.work("sleep 43.2; true"), 20.0, watch))
    finally:
        stranger.kill()
        stranger.wait()
        runner.close()
    assert set(seen) == {(True, True), (False, False)}


def test_orphans_of_a_killed_harness_are_reaped(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"host{os.getpid()}"  # a harness beside this one takes away the orphans of its own host
    script = (
        f"import socket; socket.gethostname = lambda: {host!r};"
        "from pathlib import Path; from tests.evaluation.runners.scripts import Scripts;"
        f"folder = Path({str(scripts.folder)!r}) / 'killed';"
        f"scripts = Scripts({scripts.kind!r}, {scripts.image!r}, folder);"
        f"scripts.run('echo; {ENDLESS}; true', timeout_s=100)"
    )
    (scripts.folder / "killed").mkdir()
    harness = subprocess.Popen([sys.executable, "-c", script], cwd=engine.ROOT)
    for _ in range(1000):
        if is_running(ENDLESS):
            break
        time.sleep(0.05)
    harness.kill()
    harness.wait()
    assert is_running(ENDLESS)
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    runner = scripts.runner()
    try:
        assert runner.reap() > 0
        assert runner.reap() == 0
    finally:
        runner.close()
    assert not is_running(ENDLESS)
    if scripts.kind == "process":
        assert not cgroup.existing(GROUP_PREFIX + host)
