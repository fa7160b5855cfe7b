"""What is kept of every case: one JSON file, and a table of all of them.

A file appears under its name only when it is complete, so a harness that is killed leaves nothing
half-written. Measuring and scoring write it one after the other: a case that was measured is never
measured again because its scoring was interrupted.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from evaluation.cases import Case
from evaluation.errors import EvaluationError
from evaluation.runners import Outcome
from evaluation.scoring.assess import Accuracy
from evaluation.states import State
from evaluation.trial import Trial, Vram

LOG_LINES = 50  # in a case's JSON; logs/ has more


@dataclass(frozen=True)
class Usage:
    """What a run used besides the GPU. None: not measured."""

    runtime_s: float  # from the engine's StartedAt to its FinishedAt
    wall_s: float  # from before the container is made to after it is removed
    flare_time_s: float  # as the organisers count: wall time around the whole `docker run`
    exit_code: int | None  # None: the harness stopped it
    cpu_s: float | None
    peak_ram_mib: float | None
    measured_by: str


@dataclass(frozen=True)
class Record:
    """One case of one submission. `accuracy` is None until the case is scored."""

    case: str
    state: State
    message: str
    size_xyz: tuple[int, int, int]
    scans_sha256: tuple[str, ...]  # one a channel
    reference_sha256: str
    attempts: int
    started: str  # UTC, ISO 8601
    usage: Usage | None
    vram: Vram | None  # None: not measured
    accuracy: Accuracy | None
    log: tuple[str, ...]  # its last lines
    environment: dict[str, Any]  # image digest, engine, GPU, driver, limits, versions

    @property
    def is_scored(self) -> bool:
        """Whether it has been held against its reference; infra_error never is."""
        return self.accuracy is not None

    @property
    def is_complete(self) -> bool:
        """Whether it says all that it could: it is scored, or cannot be."""
        return self.is_scored or self.state is State.INFRA_ERROR


def record(
    trial: Trial, case: Case, *, attempts: int, started: str, environment: dict[str, Any]
) -> Record:
    """Return the record of a trial, not yet scored."""
    outcome = trial.outcome
    z, y, x = case.header.shape_zyx
    return Record(
        case=case.name,
        state=trial.state,
        message=trial.message,
        size_xyz=(x, y, z),
        scans_sha256=tuple(sha256(path) for path in case.scans),
        reference_sha256=sha256(case.reference) if case.reference else "",
        attempts=attempts,
        started=started,
        usage=None if outcome is None else _usage(outcome),
        vram=trial.vram,
        accuracy=None,
        log=tuple(outcome.log.splitlines()[-LOG_LINES:]) if outcome else (),
        environment=environment,
    )


class Store:
    """The output folder of a run; one harness at a time.

    cases/ holds the records, predictions/ the masks, curves/ the GPU's samples, logs/ what the
    submission printed, plots/ and overlays/ pictures made of these.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / ".work"
        self.settings = folder / "run.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other harnesses out; raises EvaluationError when one is at work here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise EvaluationError(
                    f"{self.folder}: another evaluation writes there; choose another --output"
                ) from error
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
        write(self.path(one.case), json.dumps(asdict(one), indent=2) + "\n")

    def load(self, case: str) -> Record | None:
        """Return a case's record or None; raises EvaluationError when it is damaged."""
        path = self.path(case)
        try:
            return _record(json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EvaluationError(
                f"{path}: not a record of this version ({error}); remove it to run the case again"
            ) from error

    def path(self, case: str) -> Path:
        """Where a case's record is."""
        return self.folder / "cases" / f"{case}.json"


def row(one: Record) -> dict[str, object]:
    """Return a record as one row of results.csv; None: not measured, or undefined."""
    vram = _columns(Vram, one.vram)
    if one.vram:
        vram["contaminated"] = "; ".join(one.vram.contaminated)
    return {
        "case": one.case,
        "status": one.state.value,
        **accuracy_columns(one.accuracy),
        **_columns(Usage, one.usage),
        **vram,
        **dict(zip(("size_x", "size_y", "size_z"), one.size_xyz, strict=True)),
        "attempts": one.attempts,
        "message": one.message,
    }


def accuracy_columns(accuracy: Accuracy | None) -> dict[str, object]:
    """Return a score as columns; of several classes each has its own, named after it."""
    columns = _columns(Accuracy, accuracy)
    del columns["classes"]
    classes = accuracy.classes if accuracy else {}
    for name, (dsc, nsd) in classes.items() if len(classes) > 1 else ():
        columns |= {f"dsc_{name}": dsc, f"nsd_{name}": nsd}
    return columns


def write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """Write rows, the columns in the order in which they first occur; None is left empty."""
    text = io.StringIO()
    names = dict.fromkeys(name for one in rows for name in one)
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.getvalue())


def write(path: Path, text: str) -> None:
    """Write a text file so that `path` is as it was or complete, even if the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return a file's checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scored(one: Record, state: State, message: str, accuracy: Accuracy) -> Record:
    """Return a record with its score; a state that the run itself came to stays."""
    if one.state is State.OK and state is not State.OK:
        return replace(one, state=state, message=message, accuracy=accuracy)
    return replace(one, accuracy=accuracy)


def _usage(outcome: Outcome) -> Usage:
    return Usage(
        runtime_s=outcome.runtime_s,
        wall_s=outcome.wall_s,
        flare_time_s=outcome.wall_s,
        exit_code=outcome.exit_code,
        cpu_s=outcome.cpu_s,
        peak_ram_mib=outcome.peak_ram_mib,
        measured_by=outcome.measured_by,
    )


def _columns(kind: Any, value: Any) -> dict[str, object]:
    return asdict(value) if value else dict.fromkeys(field.name for field in fields(kind))


def _record(content: dict[str, Any]) -> Record:
    usage, vram, accuracy = (content[name] for name in ("usage", "vram", "accuracy"))
    if vram is not None:
        vram["contaminated"] = tuple(vram["contaminated"])
    if accuracy is not None:
        accuracy["classes"] = {name: tuple(pair) for name, pair in accuracy["classes"].items()}
    x, y, z = content["size_xyz"]
    content |= {
        "state": State(content["state"]),
        "size_xyz": (x, y, z),
        "usage": None if usage is None else Usage(**usage),
        "vram": None if vram is None else Vram(**vram),
        "accuracy": None if accuracy is None else Accuracy(**accuracy),
        "scans_sha256": tuple(content["scans_sha256"]),
        "log": tuple(content["log"]),
    }
    return Record(**content)
