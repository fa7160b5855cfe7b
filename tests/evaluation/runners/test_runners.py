"""Processes, Docker and Podman keep to one contract; see tests/test_harness.py for the rest."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from evaluation.cases import find
from evaluation.runners import (
    LOG_BYTES,
    MEMORY,
    TIMEOUT,
    WITHOUT_SANDBOX,
    InfrastructureError,
    InputError,
    Job,
    Limits,
    Outcome,
    Runner,
    cgroup,
    end_of,
    owner,
)
from evaluation.runners.cgroup import Group
from evaluation.runners.docker import DockerRunner, connect
from evaluation.runners.process import GROUP_PREFIX, OWNER_VARIABLE, ProcessRunner, _Tail
from evaluation.runners.processes import with_variable
from evaluation.staging import stage
from tests import engine
from tests.evaluation.challenges import FLARE24
from tests.submissions import write_cases

SMALL = replace(Limits(), memory_mib=128, shm_mib=32, tmp_mib=16, pids=40)
Run = Callable[..., Outcome]
# Of this session alone: another one may be at work beside it.
ENDLESS = f"sleep 987.{os.getpid()}"
OWN_GROUPS = GROUP_PREFIX + owner.token().replace(":", "+")


@pytest.fixture(scope="module")
def images() -> Iterator[dict[str, engine.Image]]:
    """Of each engine used so far, an image whose predict.sh does what inputs/script says."""
    built: dict[str, engine.Image] = {}
    yield built
    for name, image in built.items():
        with engine.in_use(name):
            engine.remove_image(image)


@contextlib.contextmanager
def base_of(name: str, images: dict[str, engine.Image]) -> Iterator[str]:
    """Use an engine; the name of its image."""
    with engine.in_use(name):
        if name not in images:
            images[name] = engine.build_text(
                "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\nWORKDIR /workspace\n"
                "RUN echo '. inputs/script' > predict.sh\n"
            )
        yield images[name].name


@pytest.fixture(params=engine.ENGINES)
def base(request: pytest.FixtureRequest, images: dict[str, engine.Image]) -> Iterator[str]:
    with base_of(request.param, images) as name:
        yield name


class Scripts:
    """Runs scripts with one kind of runner."""

    def __init__(self, kind: str, image: str | None, folder: Path) -> None:
        self.kind, self.image, self.folder = kind, image, folder
        (folder / "source").mkdir()
        (folder / "source" / "predict.sh").write_text(". inputs/script\n")

    def runner(self, limits: Limits = SMALL) -> Runner:
        if self.kind == "process":
            return ProcessRunner(
                "sh predict.sh", self.folder / "source", limits, None, dict(os.environ)
            )
        assert self.image is not None
        return DockerRunner(connect(), self.image, limits, None, FLARE24.contract)

    def not_enforced(self) -> list[str]:
        """The limits that its runner says are not in force."""
        runner = self.runner()
        limits = runner.describe()["limits"]
        runner.close()
        assert isinstance(limits, dict)
        return list(limits["not_enforced"])

    def work(self, script: str) -> Path:
        work = self.folder / f"work{len(list(self.folder.iterdir()))}"
        work.mkdir()
        scans, _ = write_cases(self.folder, ["a"])
        stage(find(scans)[0], work, FLARE24.contract)
        (work / "inputs" / "script").write_text(script + "\n")
        return work

    def run(
        self,
        script: str,
        limits: Limits = SMALL,
        timeout_s: float = 20.0,
        watch: Callable[[], str | None] = lambda: None,
    ) -> Outcome:
        runner = self.runner(limits)
        try:
            return runner.run(Job("a", self.work(script), timeout_s, watch))
        finally:
            runner.close()


def is_running(command: str) -> bool:
    """Whether a process has this command line, to the letter."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    return command in listed.stdout.splitlines()


@pytest.fixture(params=[*engine.ENGINES, "process"])
def scripts(
    request: pytest.FixtureRequest, images: dict[str, engine.Image], tmp_path: Path
) -> Iterator[Scripts]:
    if request.param == "process":
        yield Scripts("process", None, tmp_path)
        return
    with base_of(request.param, images) as name:
        yield Scripts("container", name, tmp_path)


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


def test_the_sandbox_has_no_rights_and_cannot_change_its_inputs(base: str, tmp_path: Path) -> None:
    scripts = Scripts("container", base, tmp_path)
    outcome = scripts.run(
        "grep CapEff /proc/self/status; grep NoNewPrivs /proc/self/status;"
        "touch inputs/x 2>/dev/null || echo read-only; df -m /tmp /dev/shm | awk '{print $2}';"
        "printf '#!/bin/sh\\necho ran' > /tmp/x; chmod +x /tmp/x; /tmp/x; cat /proc/1/comm"
    )
    said = outcome.log.split()
    assert "0000000000000000" in said
    assert said[said.index("NoNewPrivs:") + 1] == "1"
    assert {"read-only", "16", "32", "ran"} <= set(said)
    assert said[-1] in ("docker-init", "podman-init")


def test_without_the_sandbox_it_is_the_organisers_command_line(base: str, tmp_path: Path) -> None:
    scripts = Scripts("container", base, tmp_path)
    limits = replace(WITHOUT_SANDBOX, memory_mib=128, shm_mib=32)
    outcome = scripts.run(
        "touch inputs/x && echo writable; id -u; tail -n +3 /proc/net/dev | grep -vc lo:", limits
    )
    assert outcome.log.split() == ["writable", "0", "1"]


@pytest.mark.usefixtures("base")
def test_an_image_without_the_contracts_shell_has_failed_itself(tmp_path: Path) -> None:
    image = engine.build_text("FROM scratch\nCOPY Dockerfile /\n")
    try:
        scripts = Scripts("container", image.name, tmp_path)
        outcome = scripts.run("true")
    finally:
        engine.remove_image(image)
    # Docker does not start it (127); Podman's init starts, and fails (1).
    assert outcome.exit_code in (1, 127)
    assert "no such file" in outcome.log.lower()


FAULTS = {
    "user": "USER nobody-here\n",
    "group": "USER 0:nobodies-here\n",
    "number": "USER 99999999999\n",
    "volume": "VOLUME /proc\n",
    "links to inputs": "RUN ln -s b /workspace/inputs && ln -s inputs /workspace/b\n",
    "links to /tmp": "RUN rm -r /tmp && ln -s tmp /tmp\n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_image_has_wrong_is_not_the_engines_failure(
    base: str, tmp_path: Path, fault: str
) -> None:
    image = engine.build_text(f"FROM {base}\n{FAULTS[fault]}")
    try:
        outcome = Scripts("container", image.name, tmp_path).run("true")
        left = engine.docker("ps", "--all", "--quiet", "--filter", f"ancestor={image.id}").stdout
    finally:
        engine.remove_image(image)
    assert (outcome.exit_code, outcome.stopped, outcome.runtime_s) == (125, None, 0)
    assert outcome.log.startswith("the container cannot be started: ")
    assert left == ""


# Podman does not say that it has no such GPU.
@pytest.mark.parametrize("base", engine.ENGINES[:1], indirect=True)
def test_what_no_image_could_be_started_with_is_the_engines_failure(
    base: str, tmp_path: Path
) -> None:
    scripts = Scripts("container", base, tmp_path)
    runner = DockerRunner(connect(), base, SMALL, "GPU-that-is-not-there", FLARE24.contract)
    job = Job("a", scripts.work("true"), 10.0, lambda: None)
    with pytest.raises(InfrastructureError, match="the engine does not start the container: "):
        runner.run(job)
    runner.close()


@pytest.mark.usefixtures("base")
def test_an_image_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="no-such-image: the engine has no such image"):
        DockerRunner(connect(), "no-such-image", SMALL, None, FLARE24.contract)


# Podman refuses nothing when a container is made; starting it fails as if by accident.
@pytest.mark.parametrize("base", engine.ENGINES[:1], indirect=True)
def test_what_an_engine_refuses_is_not_the_machines_failure(base: str, tmp_path: Path) -> None:
    scripts = Scripts("container", base, tmp_path)
    with pytest.raises(InputError, match="the engine does not start the container"):
        scripts.run("true", replace(SMALL, memory_mib=1, shm_mib=1))


def test_a_path_may_hold_what_docker_takes_for_a_separator(base: str, tmp_path: Path) -> None:
    # Podman's API makes a list with commas of it.
    folder = tmp_path / ("a:b c=é" if engine.is_podman() else "a:b c,d=é")
    folder.mkdir()
    outcome = Scripts("container", base, folder).run("ls inputs; touch outputs/x")
    assert outcome.exit_code == 0
    assert "a_0000.nii.gz" in outcome.log


def test_orphans_of_a_killed_harness_are_reaped(
    scripts: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"host{os.getpid()}"  # a harness beside this one takes away the orphans of its own host
    script = (
        f"import socket; socket.gethostname = lambda: {host!r};"
        "from pathlib import Path; from tests.evaluation.runners.test_runners import Scripts;"
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
