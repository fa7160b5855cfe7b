"""Ways to start one submission on one case: in a container, or as a plain process."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """How one call of `sh predict.sh` ended; runtime_s is wall time, its start and end included."""

    runtime_s: float
    exit_code: int | None  # None: stopped at its time limit


def last_line(log: Path) -> str:
    """Return the last line of a log that is not blank, or "(no output)"."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "(no output)")
