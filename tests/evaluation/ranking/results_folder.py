"""Results of several teams as `run` and `batch` write them, and in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from evaluation import json_file
from evaluation.ranking.outcomes import Outcomes
from evaluation.ranking.rules import Method, Metric, RankingRules
from evaluation.record import Record
from evaluation.states import State
from evaluation.store import Store
from evaluation.teams import Entry, Team
from tests.evaluation.records import ACCURACY, RECORD, USAGE, VRAM

DSC = Metric("dsc", "DSC", "larger", failed=0.0)
TIME = Metric("flare_time_s", "Time", "smaller", failed=3600.0, tolerance=45.0)


def record(
    case: str,
    dsc: float = 0.5,
    nsd: float = 0.5,
    time_s: float = 10.0,
    above_mib_s: float = 0.0,
    state: State = State.OK,
) -> Record:
    """Return one case's record as a run with a GPU writes it; a failed one scores 0."""
    if state is not State.OK:
        dsc = nsd = 0.0
    return replace(
        RECORD,
        case=case,
        state=state,
        scans_sha256=(f"scan of {case}",),
        reference_sha256=f"reference of {case}",
        usage=replace(USAGE, flare_time_s=time_s),
        vram=replace(VRAM, area_above_limit_mib_s=above_mib_s),
        accuracy=replace(ACCURACY, dsc=dsc, nsd=nsd, classes={"Lesion": (dsc, nsd)}),
    )


def infra_error(case: str) -> Record:
    lost = replace(record(case), state=State.INFRA_ERROR, message="the engine is gone")
    return replace(lost, usage=None, vram=None, accuracy=None)


def write_team(results: Path, name: str, records: Sequence[Record]) -> None:
    store = Store(results / name)
    for one in records:
        store.save(one)


def write_submission(results: Path, name: str, state: str, message: str = "") -> None:
    entry = Entry(f"{name}.tar.gz", None, state, message)  # type: ignore[arg-type]
    json_file.write(results / name / "submission.json", entry)


def rules(*metrics: Metric, method: Method = "rank-then-aggregate") -> RankingRules:
    return RankingRules("test", method, metrics)


def outcomes(*tables: Mapping[str, Sequence[float | None]]) -> Outcomes:
    """Return what teams came to; a table is a metric: by team, one value a case, None: failed."""
    teams = list(tables[0])
    values = np.array([[table[team] for team in teams] for table in tables], np.float64)
    failed = np.isnan(values[0])
    return Outcomes(
        scoring="flare24",
        teams=tuple(Team(team, Store(Path(team)), None) for team in teams),
        cases=tuple(f"case_{i}" for i in range(values.shape[2])),
        values=values,
        failed=failed,
        missing=np.zeros_like(failed),
        excluded=(),
        unranked=(),
    )
