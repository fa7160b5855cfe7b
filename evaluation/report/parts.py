"""What the page knows of one team: figures that it shows at once, and details that it unpacks.

Details are gzipped JSON, so that four hundred cases of a team cost nothing until somebody asks.
"""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.challenges import CaseLimits, Challenge
from evaluation.gpu.curve_file import read_curve
from evaluation.record import Record, row
from evaluation.report.audience import Audience
from evaluation.report.curves import packed
from evaluation.report.metrics import METRICS, brief, distribution
from evaluation.report.overlays import Overlay, overlays
from evaluation.scoring.healthy import Healthy
from evaluation.states import State
from evaluation.tables.results import measured, values
from evaluation.teams import Team

LOG_CHARACTERS = 4000  # of a case that failed, from its end
# Of results.csv, what the page shows of a case.
COLUMNS = (
    "case",
    "status",
    "dsc",
    "nsd",
    "lesion_count",
    "lesion_f1",
    "lesion_sensitivity",
    "lesion_precision",
    "reference_ml",
    "predicted_ml",
    "false_positive_ml",
    "false_negative_ml",
    "flare_time_s",
    "runtime_s",
    "cpu_s",
    "peak_ram_mib",
    "peak_vram_mib",
    "area_mib_s",
    "baseline_mib",
    "interval_p99_s",
    "flare_max_gpu_mb",
    "flare_auc_gpu_time",
    "size_x",
    "size_y",
    "size_z",
    "attempts",
    "exit_code",
    "contaminated",
    "message",
)
# Of a record's environment, what a reader needs to judge the figures; host names are nobody's.
FACTS = {
    "image_digest": "Image",
    "command": "Command",
    "engine": "Engine",
    "machine": "Machine",
    "tool_version": "Harness",
}


@dataclass(frozen=True)
class Part:
    """One team in the page. details: base64 of gzipped JSON; its overlays are kept apart."""

    summary: dict[str, Any]
    details: str
    overlays: list[Overlay]


def part(job: tuple[Team, Challenge, int, Audience]) -> Part:
    """Pack a team, its curves into so many intervals each, for those who read it."""
    team, challenge, intervals, audience = job
    # In the order of their numbers: that of their names would tell which is which.
    records = sorted(team.records(), key=lambda one: audience.case(one.case))
    rows = [row(one, challenge.limits) for one in records]
    columns = audience.columns or COLUMNS
    draws_curves = {"runtime_s", "baseline_mib"} <= {*columns}
    details = {
        "columns": {
            name: [_shown(name, one.get(name), audience) for one in rows] for name in columns
        },
        "logs": {
            audience.case(one.case): audience.text("\n".join(one.log))[-LOG_CHARACTERS:]
            for one in records
            if one.state is not State.OK and "logs" in audience.shown
        },
        "curves": {
            audience.case(one.case): packed(read_curve(team.store.curve(one.case)), intervals)
            for one in records
            if one.vram is not None and draws_curves
        },
    }
    drawn = overlays(team.store, records) if "pictures" in audience.shown else []
    summary = {
        "name": team.name,
        "shown": sorted(audience.shown),
        "entry": _entry(team, audience),
        "lesion_label": (team.challenge() or challenge).scoring.lesion_label,
        "cases": len(records),
        "states": Counter(one.state.value for one in records),
        "figures": _figures(rows, challenge.limits),
        "healthy": healthy_figures(rows),
        "contaminated": sum(bool(one.vram and one.vram.contaminated) for one in records),
        "facts": _facts(records) if "machines" in audience.shown else {},
        "first": min((one.started for one in records), default=None),
        "last": max((one.started for one in records), default=None),
    }
    named = [replace(one, case=audience.case(one.case)) for one in drawn]
    return Part(summary, zipped(json.dumps(details).encode()), named)


def _shown(column: str, value: object, audience: Audience) -> object:
    if column == "case":
        return audience.case(str(value))
    if column == "contaminated" and value and "machines" not in audience.shown:
        return "another process used the GPU, or its memory was not steady"
    return audience.message(str(value)) if column == "message" else brief(value)


def _entry(team: Team, audience: Audience) -> dict[str, str] | None:
    """Return what became of a team's archive."""
    if team.entry is None:
        return None
    archive = team.entry.archive if "machines" in audience.shown else ""
    return {
        "state": team.entry.state,
        "archive": archive,
        "message": audience.message(team.entry.message),
    }


def zipped(content: bytes) -> str:
    """Return what the page's own `unzip` reads."""
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def healthy_figures(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """Return what was found in healthy cases; figures are None where there is none."""
    healthy = Healthy.of(rows)
    return {
        "cases": healthy.cases,
        "rate": brief(healthy.rate),
        "ml_per_case": brief(healthy.ml_per_case),
    }


def _figures(rows: Sequence[dict[str, object]], limits: CaseLimits) -> dict[str, dict[str, object]]:
    figures = {}
    for metric in METRICS:
        counted = values(rows, metric.column)
        if counted.size:
            figures[metric.column] = distribution(counted)
            if (limit := metric.limit_in(limits)) is not None:
                beyond = measured(rows, metric.column) > limit
                figures[metric.column]["beyond"] = int(beyond.sum())
    return figures


def _facts(records: Sequence[Record]) -> dict[str, list[str]]:
    """Return what the records say of image, engine and machine, each different answer once."""
    facts: dict[str, dict[str, None]] = {}
    for one in records:
        said = {label: one.environment.get(name) for name, label in FACTS.items()}
        gpu = one.environment.get("gpu") or {}
        said |= {"GPU": gpu.get("name"), "Driver": gpu.get("driver")}
        for label, value in said.items():
            if value:
                facts.setdefault(label, {})[str(value)] = None
    return {label: list(answers) for label, answers in facts.items()}
