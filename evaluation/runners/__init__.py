"""Ways to run one submission on one case: in a container, or as a process without one."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from evaluation.errors import EvaluationError
from evaluation.runners.cgroup import Reading
from volumes.text import one_line, printable

LOG_BYTES = 256 * 1024  # of a submission's output are kept, from its end
LINE_LENGTH = 300  # of what a submission says in a message
TICK_S = 0.02
UNMEASURED = "not measured"
TIMEOUT, MEMORY = "timeout", "memory"  # why a runner stops a submission


class InfrastructureError(EvaluationError):
    """The engine or the machine failed, not the submission: the case is worth another attempt."""


class InputError(EvaluationError):
    """The submission cannot be run at all: its image, archive or command is not there."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a submission may use.

    output_mib bounds what outputs/ shows, and files of its disk that were removed and are open,
    looked at five times a second and at the end; the container's own root file system is bounded by
    the engine's storage alone. sandboxed: no network, no capabilities, no
    new privileges, no swap, inputs read-only.
    """

    memory_mib: int = 28 * 1024
    shm_mib: int = 28 * 1024  # counts as memory as well
    pids: int | None = 4096  # threads count
    tmp_mib: int | None = 8 * 1024  # of /tmp, which is memory; None: the image's own /tmp
    output_mib: int = 4 * 1024
    sandboxed: bool = True


# The FLARE organisers' own command line limits memory alone.
WITHOUT_SANDBOX = Limits(pids=None, tmp_mib=None, sandboxed=False)


@dataclass(frozen=True)
class Job:
    """One case for a runner: `work` holds inputs/ and outputs/ as the contract wants them."""

    name: str
    work: Path
    timeout_s: float
    watch: Callable[[], str | None]  # called at every tick; may raise, or say why to stop


@dataclass(frozen=True, kw_only=True)
class Outcome(Reading):
    """What one call of a submission came to, and used.

    Times are seconds of the monotonic clock. measured_by: what cpu_s and peak_ram_mib come from.
    """

    created_s: float  # before the container was made
    started_s: float  # its first process started
    finished_s: float  # its first process ended
    removed_s: float  # after the container was removed
    log_s: float = 0.0  # of these, in which its log was fetched
    exit_code: int | None  # None: the harness ended it, see `stopped`
    stopped: str | None  # TIMEOUT, MEMORY, or the reason that `watch` gave
    measured_by: str = UNMEASURED
    log: str  # the end of what it printed

    @property
    def runtime_s(self) -> float:
        """From the start to the end of the first process."""
        return self.finished_s - self.started_s

    @property
    def wall_s(self) -> float:
        """From before the container is made to after it is removed, fetching its log aside."""
        return self.removed_s - self.created_s - self.log_s


class Runner(Protocol):
    """A submission that can be run on a case."""

    def describe(self) -> dict[str, object]:
        """Return what runs and where: image digest, engine version, limits that are in force."""

    def run(self, job: Job) -> Outcome:
        """Run the submission on one case; nothing of it is left when this returns or raises.

        Raises InfrastructureError when engine or machine failed, InputError when there is no such
        submission; passes on whatever `job.watch` raises.
        """

    def owns(self, cgroup: str, session: int | None) -> bool:
        """Say whether a process with this /proc/PID/cgroup and session belongs to the last run."""

    def reap(self) -> int:
        """Remove what a harness that was killed left behind; return how many there were."""

    def close(self) -> None:
        """Give back what the runner holds."""


def end_of(log: bytes) -> str:
    """Return the end of a log as text, at most LOG_BYTES of it, from the start of a line.

    A terminal can show it: carriage returns end a line, and nothing else is to be acted on.
    """
    text = log[-LOG_BYTES:].decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    text = printable(text, "\n\t")
    if len(log) <= LOG_BYTES:
        return text
    # A log without line ends, a progress bar's for example, is not worth less.
    return text.partition("\n")[2] or text


def last_line(log: str) -> str:
    """Return the last line of a log that is not blank, short, or "(no output)"."""
    lines = [line.strip() for line in log.splitlines()]
    return short_line(next((line for line in reversed(lines) if line), "(no output)"))


def short_line(text: str) -> str:
    """Return what a submission said, or named a file, as one short line for terminal and table."""
    kept = one_line(text)
    return kept if len(kept) <= LINE_LENGTH else f"{kept[: LINE_LENGTH - 1]}…"


def supervise(
    job: Job,
    started_s: float,
    ended: Callable[[float], bool],
    read: Callable[[], Reading | None],
) -> tuple[str | None, Reading]:
    """Watch a submission until it ends (None) or must be stopped (why); return its last reading.

    ended: waits for the end, at most so many seconds. read: what it has used, None once it is gone;
    what it uses in its last tick is missed.
    """
    last = read() or Reading()
    while not ended(TICK_S):
        reading = read()
        last = reading.after(last) if reading else last
        reason = job.watch()
        if reason is None and time.monotonic() - started_s > job.timeout_s:
            reason = TIMEOUT
        if reason is not None:
            return reason, last
    return None, last
