"""What is asked of a worker, and what it answers."""

from dataclasses import dataclass
from pathlib import Path

from evaluation.conditions import Conditions
from evaluation.record import Record
from evaluation.teams import HandedIn


@dataclass(frozen=True)
class Entrant:
    """One team's submission; folder: where its results go. Both are the same path on every machine.

    image_mib: how large an image may be. handed_in: what the archive is. fault: why it cannot even
    be looked at. overlap: whether scoring, loading and removing images may go on beside timed runs
    of the same machine.
    """

    name: str
    archive: Path
    folder: Path
    conditions: Conditions
    image_mib: int
    handed_in: HandedIn
    fault: str = ""
    overlap: bool = False


@dataclass(frozen=True)
class Done:
    """The case has what was asked for; remark: what else there is to say."""

    record: Record
    remark: str = ""


@dataclass(frozen=True)
class Refused:
    """The submission cannot be run at all."""

    message: str


@dataclass(frozen=True)
class Failed:
    """The machine failed: the case is worth another attempt, elsewhere if that is possible."""

    message: str


@dataclass(frozen=True)
class Lost:
    """The worker was told to stop, or what became of its task is not known."""


Answer = Done | Refused | Failed | Lost
