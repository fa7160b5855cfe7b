"""The output folder of a run: one JSON file a case, and what goes with it.

A file appears under its name only when it is complete, so a harness that is killed leaves nothing
half-written. Measuring and scoring write it one after the other: a case that was measured is never
measured again because its scoring was interrupted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evaluation import json_file
from evaluation.errors import EvaluationError
from evaluation.record import AREA_ABOVE, Record
from evaluation.scoring.assess import OF_FAILED
from evaluation.scratch import lock
from evaluation.states import State

LOCK = ".lock"


class Store:
    """The output folder of a run; one harness at a time.

    cases/ holds the records, predictions/ the masks, curves/ the GPU's samples, logs/ what the
    submission printed, plots/ and overlays/ pictures made of these. .work/ holds the locks of a
    batch's workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / ".work"
        self.settings = folder / "run.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other harnesses out; raises EvaluationError when one is at work here."""

        def refuse() -> None:
            raise EvaluationError(
                f"{self.folder}: another evaluation writes there; choose another --output"
            )

        with lock(self.folder / LOCK, refuse):
            yield

    def mask(self, case: str) -> Path:
        """Where a case's mask is."""
        return self.folder / "predictions" / f"{case}.nii.gz"

    def curve(self, case: str) -> Path:
        """Where a case's GPU samples are."""
        return self.folder / "curves" / f"{case}.csv.gz"

    def log(self, case: str) -> Path:
        """Where the end of a case's log is."""
        return self.folder / "logs" / f"{case}.log"

    def picture(self, kind: str, name: str) -> Path:
        """Where a picture is."""
        return self.folder / kind / f"{name}.png"

    def save(self, one: Record) -> None:
        """Write a case's record, in place of the one before."""
        json_file.write(self.path(one.case), one)

    def load(self, case: str) -> Record | None:
        """Return a case's record or None; raises EvaluationError when it is damaged."""
        what, remedy = "a record of this version", "remove it to run the case again"
        return json_file.read(self.path(case), Record, what, remedy, _upgraded)

    def path(self, case: str) -> Path:
        """Where a case's record is."""
        return self.folder / "cases" / f"{case}.json"


def _upgraded(content: Any) -> Any:
    """Return a record of an earlier version as of now.

    One had the limit of GPU memory in a field's name, and the scores of an empty mask for a case
    without one.
    """
    if not isinstance(content, dict):
        return content
    if isinstance(accuracy := content.get("accuracy"), dict) and content.get("state") != State.OK:
        accuracy.update(OF_FAILED)
    vram = content.get("vram") or {}
    for name, limit in [(name, AREA_ABOVE.fullmatch(name)) for name in vram]:
        if limit:
            vram["vram_limit_mib"] = float(limit[1])
            vram["area_above_limit_mib_s"] = vram.pop(name)
    return content
