"""An exported model on the cases held out from its training: the app segments, the harness scores.

Both are started as anyone would start them, so what is measured is what is submitted.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from evaluation.scoring.healthy import Healthy
from evaluation.tables.csv_file import read_csv
from evaluation.tables.markup import in_markdown, markdown_table
from training.cases import SUFFIX
from training.errors import TrainingError
from training.files import Json, link
from training.nnunet import ROOT


def validate(model: Path, raw: Path, cases: Sequence[str], output: Path, device: str) -> list[Json]:
    """Segment and score ``cases`` of nnU-Net's raw folder; a row each, as scores.csv has it.

    Masks, scores.csv and scores.md are in ``output``. A case without a mask counts with 0. Raises
    TrainingError where nothing could be scored.
    """
    shutil.rmtree(output, ignore_errors=True)
    scans, labels, masks = (output / part for part in ("scans", "labels", "masks"))
    for case in cases:
        scan, label = f"{case}_0000{SUFFIX}", f"{case}{SUFFIX}"
        link(scans / scan, (raw / "imagesTr" / scan).resolve())
        link(labels / label, (raw / "labelsTr" / label).resolve())
    masks.mkdir()
    segment = ("--input", scans, "--output", masks, "--model", model, "--device", device)
    score = ("--predictions", masks, "--labels", labels, "--output", output)
    for command in (("app", *segment), ("evaluation", "score", *score)):
        if _python(*command) not in (0, 1):  # 1: a case failed, which the scores count
            raise TrainingError(f"{model}: could not be validated, see above")
    return read_scores(output)


def read_scores(folder: Path) -> list[Json]:
    """The rows of scores.csv, which the harness wrote there; raises TrainingError without it."""
    try:
        return [_numbers(row) for row in read_csv(folder / "scores.csv")]
    except FileNotFoundError:
        raise TrainingError(
            f"{folder}: holds no scores.csv; run python -m evaluation score"
        ) from None


def summary(rows: Sequence[Json]) -> Json:
    """Means of the rows: of all cases, of those with lesions, and how often healthy ones fail."""
    ill = [row for row in rows if row["reference_ml"] > 0]
    healthy = Healthy.of(rows)
    return {
        "cases": len(rows),
        "dsc": _mean(rows, "dsc"),
        "nsd": _mean(rows, "nsd"),
        "cases_with_lesions": len(ill),
        "dsc_with_lesions": _mean(ill, "dsc"),
        "nsd_with_lesions": _mean(ill, "nsd"),
        "lesion_f1": _mean(ill, "lesion_f1"),
        "healthy_cases": healthy.cases,
        "healthy_with_false_positives": healthy.alarms,
        "false_ml_per_healthy_case": healthy.ml_per_case,
    }


def _mean(rows: Sequence[Json], column: str) -> float | None:
    values = [row[column] for row in rows if row[column] is not None]
    return round(statistics.fmean(values), 4) if values else None


def _numbers(row: dict[str, str]) -> Json:
    """A row of scores.csv; what is empty there was undefined."""
    words = ("case", "status", "message")
    return {k: v if k in words else float(v) if v else None for k, v in row.items()}


def _python(*module_and_arguments: object) -> int:
    command = [sys.executable, "-m", *map(str, module_and_arguments)]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def markdown(content: Json) -> str:
    """summary.json for people."""
    rows = [
        (
            m["configuration"],
            f"{m['epochs']} x {m['iterations']}",
            m["batch_size"],
            f"{m['parameters'] / 1e6:.3f}M",
            f"{m['seconds_in_epochs'] / 3600:.2f}",
            m["device"],
        )
        for m in content["members"]
    ]
    head = ("training", "epochs", "batch", "parameters", "hours", "device")
    lines = [f"# {content['recipe']}", "", f"{content['title']}.", ""]
    lines += [markdown_table(head, rows, words=range(len(head)))]
    lines += ["", f"Fold {content['fold']} of the split by patient, seed {content['split_seed']}."]
    if "validation" not in content:
        return "\n".join([*lines, "Nothing was held out.", ""])
    v = content["validation"]
    healthy_too = (shown(v[name]) for name in ("dsc", "nsd"))
    ill = (shown(v[name]) for name in ("dsc_with_lesions", "nsd_with_lesions", "lesion_f1"))
    lines += [
        f"Held out: {v['cases']} cases, {v['healthy_cases']} of them healthy.",
        "",
        markdown_table(
            ("", "DSC", "NSD", "lesion F1"),
            [("all cases", *healthy_too, ""), ("cases with lesions", *ill)],
            words=range(4),
        ),
        "",
    ]
    if v["healthy_cases"]:
        false = v["healthy_with_false_positives"]
        lines += [f"Healthy cases in which a lesion is seen: {false} of {v['healthy_cases']},"]
        lines += [f"{shown(v['false_ml_per_healthy_case'])} ml of it in the mean.", ""]
    if "lesion_filter" in content:
        lines += [content["lesion_filter"], "The scores here are without one.", ""]
    cases = [
        (in_markdown(c["case"]), c["status"], shown(c["dsc"]), shown(c["nsd"]))
        for c in content["cases"]
    ]
    table = markdown_table(("case", "state", "DSC", "NSD"), cases, words=range(4))
    return "\n".join([*lines, table, ""])


def shown(value: float | None, decimals: int = 3) -> str:
    """A score as tables have it."""
    return "n/a" if value is None else f"{value:.{decimals}f}"
