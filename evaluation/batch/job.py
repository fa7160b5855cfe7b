"""What is asked of a worker, and what it answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.contracts import FLARE, Contract
from evaluation.harness import settings_of
from evaluation.record import Record
from evaluation.runners import Limits


@dataclass(frozen=True)
class Conditions:
    """What is the same for every run of a batch.

    image_mib: how large an image may be. overlap: whether scoring, loading and removing images may
    go on beside timed runs of the same machine.
    """

    limits: Limits
    timeout_s: float
    interval_s: float
    scoring: str
    image_mib: int
    overlap: bool = False
    contract: Contract = FLARE

    def settings(self, submission: dict[str, Any], *, on_gpu: bool) -> dict[str, Any]:
        """Return what must not change within one team's results (see `harness.settings_of`)."""
        return settings_of(
            submission,
            contract=self.contract,
            limits=self.limits,
            timeout_s=self.timeout_s,
            interval_s=self.interval_s,
            scoring=self.scoring,
            gpu="each worker's own" if on_gpu else None,
        )


@dataclass(frozen=True)
class Team:
    """One submission; folder: where its results go. Both are the same path on every machine."""

    name: str
    archive: Path
    folder: Path
    conditions: Conditions


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
    """The worker was told to stop, or nobody knows what became of its task."""


Answer = Done | Refused | Failed | Lost
