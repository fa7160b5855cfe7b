"""Control groups of both versions in a folder that looks like /sys/fs/cgroup."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.runners import cgroup
from evaluation.runners.cgroup import CONTROLLERS, Group, Reading

MIB = 2**20
V1 = {
    "memory": {
        "memory.max_usage_in_bytes": f"{100 * MIB}\n",
        "memory.limit_in_bytes": "9223372036854771712\n",
        "memory.memsw.limit_in_bytes": "9223372036854771712\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "cgroup.procs": "",
    },
    "cpuacct": {"cpuacct.usage": "1500000000\n", "cgroup.procs": ""},
    "pids": {"pids.events": "max 7\n", "pids.max": "max\n", "cgroup.procs": ""},
}
V2 = {
    "memory.peak": f"{100 * MIB}\n",
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "memory.events": "low 0\nhigh 0\nmax 31\noom 3\noom_kill 2\noom_group_kill 0\n",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n",
    "pids.events": "max 7\n",
    "pids.max": "max\n",
    "cgroup.procs": "",
}
FULL = Reading(cpu_s=1.5, peak_ram_mib=100.0, oom_kills=2, forks_refused=7)


def fill(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content)


class Fake:
    """A root without groups; `make` adds one as the kernel would show it."""

    def __init__(self, root: Path, version: int) -> None:
        self.root, self.version = root, version
        if version == 2:
            fill(root, {"cgroup.controllers": "cpu memory pids\n", "cgroup.procs": "1\n"})
        else:
            for controller in CONTROLLERS:
                fill(root / controller, {"cgroup.procs": "1\n"})

    def make(self, name: str) -> Group:
        if self.version == 2:
            fill(self.root / name, V2)
        else:
            for controller, files in V1.items():
                fill(self.root / controller / name, files)
        return cgroup._beneath(name)

    def folders(self, name: str) -> list[Path]:
        if self.version == 2:
            return [self.root / name]
        return [self.root / controller / name for controller in CONTROLLERS]


@pytest.fixture(params=[1, 2])
def fake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    return Fake(tmp_path / "cgroup", request.param)


def test_a_group_is_read(fake: Fake) -> None:
    group = fake.make("flare-a")
    assert group.version == fake.version
    assert group.read() == FULL


def test_a_group_that_is_gone_has_no_reading(fake: Fake) -> None:
    group = cgroup._beneath("flare-gone")
    assert group.read() is None
    assert group.members() == set()


def test_what_an_older_kernel_does_not_count_is_not_0(fake: Fake) -> None:
    group = fake.make("flare-a")
    for name in ("memory.peak", "memory.max_usage_in_bytes"):  # memory.peak: since Linux 5.19
        (group.memory / name).unlink(missing_ok=True)
    (group.pids / "pids.events").unlink()
    assert group.read() == Reading(cpu_s=1.5, oom_kills=2)
    group = fake.make("flare-b")
    for name in ("cpu.stat", "cpuacct.usage"):
        (group.cpuacct / name).unlink(missing_ok=True)
    assert group.read() == replace(FULL, cpu_s=None)


def test_a_reading_in_the_midst_of_removal_takes_nothing_away() -> None:
    partial = Reading(cpu_s=2.0)
    assert partial.after(FULL) == replace(FULL, cpu_s=2.0)
    assert FULL.after(partial) == replace(FULL, cpu_s=2.0)


def test_limits_are_written_swap_included(fake: Fake) -> None:
    group = fake.make("flare-a")
    group.limit(512, 40)
    limit = str(512 * MIB)
    if fake.version == 2:
        assert (group.memory / "memory.max").read_text() == limit
        assert (group.memory / "memory.swap.max").read_text() == "0"
    else:
        assert (group.memory / "memory.limit_in_bytes").read_text() == limit
        assert (group.memory / "memory.memsw.limit_in_bytes").read_text() == limit
    assert (group.pids / "pids.max").read_text() == "40"


def test_without_swap_accounting_no_file_is_made_for_it(fake: Fake) -> None:
    group = fake.make("flare-a")
    for name in ("memory.swap.max", "memory.memsw.limit_in_bytes"):
        (group.memory / name).unlink(missing_ok=True)
    before = sorted(path.name for path in group.memory.iterdir())
    group.limit(512, None)
    assert sorted(path.name for path in group.memory.iterdir()) == before
    assert (group.pids / "pids.max").read_text() == "max\n"


def test_a_refused_limit_is_an_error(fake: Fake) -> None:
    with pytest.raises(FileNotFoundError):
        cgroup._beneath("flare-gone").limit(512, None)


def test_a_process_enters_every_controller(fake: Fake) -> None:
    entrances = fake.make("flare-a").entrances()
    assert entrances == [folder / "cgroup.procs" for folder in fake.folders("flare-a")]


def proc(monkeypatch: pytest.MonkeyPatch, folder: Path, content: str | None) -> None:
    """Let /proc/PID/cgroup of every process hold this; None: there is no such process."""
    listed = folder / "proc-cgroup"
    if content is not None:
        listed.write_text(content)
    monkeypatch.setattr(
        cgroup, "Path", lambda path: listed if str(path).startswith("/proc/") else Path(path)
    )


def membership(fake: Fake, path: str) -> str:
    if fake.version == 2:
        return f"0::{path}\n"
    # Controllers are named in any order and several a line; a hybrid system has both versions.
    return (
        f"12:pids:{path}\n4:cpu,cpuacct:{path}\n3:memory:{path}\n2:freezer:/\n"
        "1:name=systemd:/init.scope\n0::/init.scope\n"
    )


def test_the_group_of_a_process_is_found(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake.make("system.slice/docker-12ab.scope")
    proc(monkeypatch, tmp_path, membership(fake, "/system.slice/docker-12ab.scope"))
    group = cgroup.of_process(77)
    assert group == made
    assert group is not None
    assert group.read() == FULL


@pytest.mark.parametrize(
    "path",
    ["/", "/../../docker/12ab", None],
    ids=["in the root group", "outside of what is mounted", "ended"],
)
def test_a_process_without_a_group_of_its_own_that_can_be_seen(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str | None
) -> None:
    proc(monkeypatch, tmp_path, None if path is None else membership(fake, path))
    assert cgroup.of_process(77) is None


def test_a_process_has_no_group_when_a_controller_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as part of the root group there, whose numbers are the whole machine's."""
    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    Fake(tmp_path / "cgroup", 1).make("a")
    proc(monkeypatch, tmp_path, "4:cpu,cpuacct:/a\n3:memory:/a\n0::/a\n")
    assert cgroup.of_process(77) is None


@pytest.fixture
def kernel(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """New folders get the files that a kernel puts there, and can be removed with them."""
    make, remove = Path.mkdir, Path.rmdir

    def mkdir(path: Path) -> None:
        make(path)
        files = V2 if fake.version == 2 else V1[path.parent.name]
        for name, content in files.items():
            (path / name).write_text(content)

    def rmdir(path: Path) -> None:
        for file in path.iterdir():
            file.unlink()
        remove(path)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", rmdir)


@pytest.mark.usefixtures("kernel")
def test_a_group_is_made_and_removed(fake: Fake) -> None:
    group = cgroup.create("flare-new")
    assert group is not None
    assert all(folder.is_dir() for folder in fake.folders("flare-new"))
    assert group.read() == FULL
    group.end()
    assert not any(folder.exists() for folder in fake.folders("flare-new"))
    group.end()  # a second time does no harm


def test_where_the_kernel_hands_down_no_controller_there_is_no_group(fake: Fake) -> None:
    """A folder can be made, but the file for the memory limit does not appear in it."""
    assert cgroup.create("flare-new") is None
    assert not any(folder.exists() for folder in fake.folders("flare-new"))


def test_where_making_is_refused_there_is_no_group(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused in the last folder: nothing of the others stays."""
    make = Path.mkdir

    def mkdir(path: Path) -> None:
        if path == fake.folders("flare-new")[-1]:
            raise PermissionError(13, "Permission denied", str(path))
        make(path)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert cgroup.create("flare-new") is None
    assert not any(folder.exists() for folder in fake.folders("flare-new"))


def test_existing_groups_are_found_by_their_prefix(fake: Fake) -> None:
    assert cgroup.existing("flare-") == []
    made = [fake.make(name) for name in ("flare-b", "flare-a")]
    fake.make("docker")
    if fake.version == 1:  # one that is half removed is still there to be ended
        (fake.root / "pids" / "flare-c").mkdir()
        made.insert(0, cgroup._beneath("flare-c"))
    assert cgroup.existing("flare-") == made[::-1]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("entered", [0, -1])
def test_the_end_of_a_group_is_that_of_its_processes(
    fake: Fake, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, entered: int
) -> None:
    """Of one that has entered a single controller yet, too."""
    monkeypatch.setattr(cgroup, "KILL_TIMEOUT_S", 0.2)  # the list here never gets shorter
    group = fake.make("flare-a")
    # 0 stands for a process of another PID namespace; as a target of kill it would be ourselves.
    group.entrances()[entered].write_text(f"0\n{sleeper.pid}\n")
    assert group.members() == {sleeper.pid}
    group.end()
    assert sleeper.wait(10) == -9


def test_killing_goes_on_where_a_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def kill(pid: int, _: int) -> None:
        tried.append(pid)
        if pid == 1001:
            raise ProcessLookupError

    monkeypatch.setattr("evaluation.runners.cgroup.os.kill", kill)
    cgroup.kill([1001, 1002])
    assert tried == [1001, 1002]
