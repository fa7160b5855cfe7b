"""What is kept of every case: how its run ended, what it used, and how it was scored."""

import re
from typing import Any

from msgspec import Struct, structs
from msgspec.structs import replace

from evaluation.challenges import CaseLimits
from evaluation.scoring.assess import Accuracy
from evaluation.states import State

AREA_ABOVE = re.compile(r"area_above_([0-9.]+)_mib_s")  # a column: memory above a limit over time


class Usage(Struct, frozen=True, forbid_unknown_fields=True):
    """What a run used besides the GPU. None: not measured."""

    runtime_s: float  # from the engine's StartedAt to its FinishedAt
    wall_s: float  # from before the container is made to after it is removed, its log aside
    flare_time_s: float  # as the organisers count: wall time around the whole `docker run`
    exit_code: int | None  # None: the harness stopped it
    cpu_s: float | None
    peak_ram_mib: float | None
    measured_by: str


class Vram(Struct, frozen=True, forbid_unknown_fields=True):
    """What a run used of the GPU, net of the baseline where it does not say flare or baseline."""

    peak_vram_mib: float  # a lower bound: a peak between two samples is missed
    area_mib_s: float
    vram_limit_mib: float | None  # the challenge's, where it has one
    area_above_limit_mib_s: float | None
    first_use_s: float | None
    baseline_mib: float
    baseline_spread_mib: float
    tail_s: float | None
    tail_area_mib_s: float
    accounting_peak_mib: float | None  # NVML's own, of the largest process, where it keeps one
    samples: int
    interval_p50_s: float
    interval_p99_s: float
    interval_max_s: float
    memory_api: str
    flare_max_gpu_mb: float
    flare_auc_gpu_time: float
    contaminated: tuple[str, ...]


class Record(Struct, frozen=True, forbid_unknown_fields=True):
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
    alias: str = ""  # what the submission was told instead of the case's name

    @property
    def is_scored(self) -> bool:
        """Whether it has been held against its reference; infra_error never is."""
        return self.accuracy is not None

    @property
    def is_complete(self) -> bool:
        """Whether it says all that it could: it is scored, or cannot be."""
        return self.is_scored or self.state is State.INFRA_ERROR


def row(one: Record, limits: CaseLimits) -> dict[str, object]:
    """Return a record as one row of results.csv; None: not measured, or undefined.

    Of memory above a limit it has what was measured above that of `limits`.
    """
    return {
        "case": one.case,
        "status": one.state.value,
        **accuracy_columns(one.accuracy),
        **_columns(Usage, one.usage),
        **_vram_columns(one.vram, limits.vram_mib),
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


def scored(one: Record, state: State, message: str, accuracy: Accuracy) -> Record:
    """Return a record with its score; a state that the run itself came to stays.

    message: why the state is not ok, or what else there is to say, which stands there once.
    """
    if one.state is not State.OK:
        return replace(one, accuracy=accuracy)
    if state is State.OK:
        known = () if message in one.message else (message,)
        message = "; ".join(filter(None, (one.message, *known)))
    return replace(one, state=state, message=message, accuracy=accuracy)


def unscorable(one: Record, why: Exception) -> Record:
    """Return the record of a case whose scoring failed; what its run used is kept."""
    return replace(one, state=State.INFRA_ERROR, message=cannot_be_scored(why), accuracy=None)


def cannot_be_scored(why: Exception) -> str:
    """Return the message of such a case."""
    return f"cannot be scored: {why}"


def _vram_columns(vram: Vram | None, limit_mib: float | None) -> dict[str, object]:
    columns = _columns(Vram, vram)
    if vram is not None:
        columns["contaminated"] = "; ".join(vram.contaminated)
    measured_with = columns.pop("vram_limit_mib")
    above = columns.pop("area_above_limit_mib_s")
    named = {}
    for name, value in columns.items():
        named[name] = value
        if name == "area_mib_s" and limit_mib is not None:
            named[f"area_above_{limit_mib:g}_mib_s"] = above if measured_with == limit_mib else None
    return named


def _columns(kind: Any, value: Any) -> dict[str, object]:
    return structs.asdict(value) if value else dict.fromkeys(kind.__struct_fields__)
