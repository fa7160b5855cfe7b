"""Runs a submission as a process, in a copy of the contract's folders, where there is no engine.

What limits it depends on the rights of the harness: with its own control group the kernel limits
memory and processes; without, memory is watched. `describe` says what is not in force.
"""

import os
import resource
import select
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import structs

from evaluation.outputs import Nameless
from evaluation.runners import (
    LOG_BYTES,
    MEMORY,
    InfrastructureError,
    InputError,
    Job,
    Limits,
    Outcome,
    cgroup,
    end_of,
    owner,
    supervise,
)
from evaluation.runners.cgroup import Group, Reading
from evaluation.runners.processes import SAMPLED, Tree, with_variable

GROUP_PREFIX = "flare-"
OWNER_VARIABLE, RUN_VARIABLE = "FLARE_OWNER", "FLARE_RUN"
PATIENCE_S = 10.0  # with a log that a process outside of the group still holds open
OF_THE_CASE = ("inputs", "outputs")  # everything else of the submission is linked in


class ProcessRunner:
    """Runs a shell command in a folder that looks like the image's /workspace."""

    def __init__(
        self,
        command: str,
        source: Path,
        limits: Limits,
        gpu: str | None,
        environment: Mapping[str, str],
    ) -> None:
        """Take a command that runs in `source`, the submission's folder.

        gpu: UUID of the one that the process sees; None: it sees none. environment: the rest of
        what it sees; the Python that runs this comes first on its PATH.
        """
        if not source.is_dir():
            raise InputError(f"{source}: no such folder; the command runs in the submission's own")
        self.command, self.source, self.limits = command, source.resolve(), limits
        self._environment = {
            **environment,
            "PATH": f"{Path(sys.executable).parent}:{environment.get('PATH', os.defpath)}",
            "CUDA_VISIBLE_DEVICES": gpu or "",
            OWNER_VARIABLE: owner.token(),
        }
        self._offline = limits.sandboxed and _can_go_offline()
        self._enclosure: _Enclosure | None = None
        self._session: int | None = None

    def describe(self) -> dict[str, object]:
        """Return the command, and which limits are not in force for want of rights."""
        probe = _Enclosure(self.limits)
        # Without a group memory is watched, but what clears its environment escapes.
        not_enforced = ["shm_mib", "tmp_mib"] + ([] if probe.group else ["pids", "memory_mib"])
        probe.end()
        if self.limits.sandboxed:
            not_enforced += ["capabilities", "privileges", "read-only inputs"]
            not_enforced += [] if self._offline else ["network"]
        return {
            "runner": "process",
            "command": self.command,
            "source": str(self.source),
            "limits": structs.asdict(self.limits) | {"not_enforced": not_enforced},
        }

    def run(self, job: Job) -> Outcome:
        """See `Runner.run`."""
        created_s = time.monotonic()
        self._link_source(job.work)
        enclosure = self._enclosure = _Enclosure(self.limits)
        try:
            started_s = time.monotonic()
            process = self._start(job.work, enclosure)
            self._session = process.pid
            tail = _Tail(process)
            stopped = _watch(job, process.pid, enclosure, started_s)
            finished_s = time.monotonic()
            if stopped is not None:
                process.kill()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            reading = enclosure.read(usage)
        finally:
            enclosure.end()
        code = process.returncode
        return Outcome(
            created_s=created_s,
            started_s=started_s,
            finished_s=finished_s,
            removed_s=time.monotonic(),
            # As a shell and a container engine count: 128 and the signal.
            exit_code=None if stopped else (code if code >= 0 else 128 - code),
            stopped=stopped,
            **vars(reading),
            measured_by=enclosure.method,
            log=tail.text(),
        )

    def owns(self, cgroup: str, session: int | None) -> bool:
        """See `Runner.owns`."""
        group = self._enclosure.group if self._enclosure else None
        return (group is not None and group.memory.name in cgroup) or (
            session is not None and session == self._session
        )

    def reap(self) -> int:
        """End the processes and groups of harnesses that have ended."""
        left = with_variable(OWNER_VARIABLE)
        orphans = [pid for pid, token in left.items() if owner.is_dead(token)]
        cgroup.kill(orphans)
        for group in cgroup.existing(GROUP_PREFIX):
            if owner.is_dead(_owner_of(group)):
                group.end()
        return len(orphans)

    def close(self) -> None:
        """Nothing is held."""

    def _link_source(self, work: Path) -> None:
        """Put what the command needs beside the case."""
        for part in self.source.iterdir():
            if part.name not in OF_THE_CASE and not part.name.startswith("."):
                (work / part.name).symlink_to(part)

    def _start(self, work: Path, enclosure: "_Enclosure") -> subprocess.Popen[bytes]:
        # The shell enters the group before it becomes the submission.
        script = 'for entrance; do echo 0 >"$entrance" || exit 125; done; '
        script += self.command
        entrances = enclosure.group.entrances() if enclosure.group else []
        offline = ["unshare", "--net", "--"] if self._offline else []
        try:
            # A session of its own: what the terminal sends to the harness is not for it.
            return subprocess.Popen(
                [*offline, "/bin/sh", "-c", script, "sh", *map(str, entrances)],
                cwd=work,
                env={**self._environment, RUN_VARIABLE: enclosure.name},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise InfrastructureError(f"the process cannot be started: {error}") from error


class _Enclosure:
    """Holds the processes of one run together: a control group where there is the right to it."""

    def __init__(self, limits: Limits) -> None:
        self.name = uuid.uuid4().hex
        self.group = cgroup.create(f"{GROUP_PREFIX}{owner.token().replace(':', '+')}+{self.name}")
        if self.group is not None:
            self.group.limit(limits.memory_mib, limits.pids)
        self.limits = limits
        self._tree = Tree(self._members)

    @property
    def method(self) -> str:
        """What memory and CPU time are measured by."""
        if self.group is not None:
            return f"cgroup v{self.group.version}"
        return f"wait4, and {SAMPLED}"

    def full(self) -> bool:
        """Say whether the memory limit is passed where there is no group to enforce it."""
        return self.group is None and self._tree.memory_mib() > self.limits.memory_mib

    def read(self, usage: resource.struct_rusage) -> Reading:
        """Return what was used, after the end of the first process, whose `usage` is given."""
        reading = self.group.read() if self.group else None
        if reading is not None:
            return reading
        # A single process's peak is the kernel's own, and so may exceed what was sampled. But it
        # begins with what the harness had at the fork: no more than that says nothing.
        ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_kib = usage.ru_maxrss if usage.ru_maxrss > ours else 0
        peak_mib = max(self._tree.peak_mib, peak_kib / 1024) or None
        return Reading(usage.ru_utime + usage.ru_stime, peak_mib)

    def members(self) -> Collection[int]:
        """Return the processes that there are at the moment."""
        return self.group.members() if self.group else self._members()

    def end(self) -> None:
        """Kill what is left."""
        if self.group is not None:
            self.group.end()
        self._tree.end()

    def _members(self) -> list[int]:
        return [pid for pid, name in with_variable(RUN_VARIABLE).items() if name == self.name]


class _Tail:
    """Keeps the end of what a process prints: a chatty one must not fill disk or memory."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._kept = bytearray()
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            while chunk := os.read(stream.fileno(), 1 << 16):
                self._kept += chunk
                if len(self._kept) > 4 * LOG_BYTES:
                    del self._kept[: -2 * LOG_BYTES]  # more than is shown, so that it shows as cut

    def text(self) -> str:
        """Return the log's end, once every process that could write to it has ended."""
        self._thread.join(timeout=PATIENCE_S)
        return end_of(bytes(self._kept))


def _watch(job: Job, pid: int, enclosure: _Enclosure, started_s: float) -> str | None:
    """Wait for the process's end; return None, or why it must be stopped."""
    descriptor = os.pidfd_open(pid)
    try:
        end = select.poll()
        end.register(descriptor, select.POLLIN)
        nameless = Nameless(enclosure.members, job.work)

        def full_or_watched() -> str | None:
            if enclosure.full():
                return MEMORY
            return nameless.excess(enclosure.limits.output_mib) or job.watch()

        stopped, _ = supervise(
            Job(job.name, job.work, job.timeout_s, full_or_watched),
            started_s,
            lambda timeout_s: bool(end.poll(timeout_s * 1000)),
            lambda: None,
        )
    finally:
        os.close(descriptor)
    return stopped


def _owner_of(group: Group) -> str:
    name = group.memory.name.removeprefix(GROUP_PREFIX)
    return name.rpartition("+")[0].replace("+", ":")


def _can_go_offline() -> bool:
    """Say whether this user may start a process without a network."""
    try:
        return subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode == 0
    except OSError:
        return False
