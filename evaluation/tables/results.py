"""The tables that papers print of a FLARE submission, in Markdown and LaTeX.

A row is a case as results.csv has it; None is what was not measured, which no table shows as 0.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.challenges import CaseLimits, as_gb
from evaluation.numbers import counted
from evaluation.scoring.assess import Accuracy
from evaluation.scoring.healthy import Healthy
from evaluation.states import State
from evaluation.tables import markup
from evaluation.tables.markup import Table

Row = Mapping[str, object]
Floats = NDArray[np.float64]

NOT_MEASURED = "not measured"

# What it is called, its column, what its values are multiplied by, and how many decimals it has.
SUMMARY = (
    ("DSC (%)", "dsc", 100.0, 2),
    ("NSD (%)", "nsd", 100.0, 2),
    ("Lesion-wise F1", "lesion_f1", 1.0, 3),
    ("Lesion-wise sensitivity", "lesion_sensitivity", 1.0, 3),
    ("False-positive volume (ml)", "false_positive_ml", 1.0, 2),
    ("False-negative volume (ml)", "false_negative_ml", 1.0, 2),
    ("Running time (s)", "runtime_s", 1.0, 2),
    ("CPU time (s)", "cpu_s", 1.0, 2),
    ("Peak RAM (MiB)", "peak_ram_mib", 1.0, 0),
    ("Peak GPU above the baseline (MiB)", "peak_vram_mib", 1.0, 1),
    ("Area under the VRAM-time curve above the baseline (MiB·s)", "area_mib_s", 1.0, 1),
    ("Organisers' running time (s)", "flare_time_s", 1.0, 2),
    ("Organisers' max GPU (MB)", "flare_max_gpu_mb", 1.0, 1),
    ("Organisers' total GPU (MB)", "flare_auc_gpu_time", 1.0, 1),
)

ORGANISERS = (
    "Running Time is the wall time around the whole container. Max GPU is the largest and Total GPU"
    " 0.1 s times the sum of the memory in use on the whole GPU, sampled every 0.1 s: the"
    " organisers' figures, in MiB and MiB·s though they print MB, nothing subtracted."
)
CONTAMINATED = (
    "† Contaminated: another process used the GPU, or its memory was not stable before the run."
)
STATISTICS = (
    "SD is the sample's (n - 1), n/a for a single case. Quartiles are interpolated linearly."
    " Cases counts those that a line is of. A failed case counts with 0 in DSC, NSD, F1 and"
    " sensitivity, and with all of its lesions missed; in what has no worst value, as"
    " false-positive volume and what a run uses, it does not count."
)
NET = (
    "Running time is from the container's start to its finish, and so are peak and area, with what"
    " was in use before the run subtracted; the organisers' figures are as in the table of cases."
)
LESIONS = (
    "A lesion is found, and a prediction is right, where they share a voxel."
    " F1 is undefined, and in no mean, where neither mask has a lesion, sensitivity where the"
    " reference has none."
)
INFRA_ERROR = (
    "infra_error: the engine or the machine failed, not the submission; such a case is in no mean."
)


def markdown(rows: Sequence[Row], limits: CaseLimits) -> str:
    """Return the tables as GitHub's Markdown: one of the cases, a summary, and what went wrong.

    rows: one mapping a case, with `case`, `status`, `dsc` and `nsd`; and, where it was run,
    `size_x`, `size_y`, `size_z` and columns in s, MiB and MiB·s as results.csv has them. What none
    of the rows knows of is left out.
    """
    return "\n".join(
        markup.markdown(table, number) for number, table in enumerate(_tables(rows, limits), 1)
    )


def latex(rows: Sequence[Row], limits: CaseLimits) -> str:
    """Return the tables of `markdown` in LaTeX, with the packages booktabs and longtable."""
    return "\n".join([markup.LATEX_HEAD, *(markup.latex(table) for table in _tables(rows, limits))])


def _tables(rows: Sequence[Row], limits: CaseLimits) -> list[Table]:
    known = {name for row in rows for name in row}
    cases = [_cases(rows)] if "flare_time_s" in known else []
    return [*cases, _summary(rows, known), _counts(rows, known, limits)]


def _cases(rows: Sequence[Row]) -> Table:
    columns = [
        ("Case ID", [str(row["case"]) for row in rows]),
        ("Image Size", [f"({row['size_x']}, {row['size_y']}, {row['size_z']})" for row in rows]),
        ("Running Time (s)", [_number(row, "flare_time_s", 2) for row in rows]),
        ("Max GPU (MB)", [_number(row, "flare_max_gpu_mb", 0) + _mark(row) for row in rows]),
        ("Total GPU (MB)", [_number(row, "flare_auc_gpu_time", 0) + _mark(row) for row in rows]),
    ]
    failures = ["" if row["status"] == State.OK else str(row["status"]) for row in rows]
    columns += [("Failure", failures)] if any(failures) else []
    notes = [ORGANISERS, CONTAMINATED] if any(map(_mark, rows)) else [ORGANISERS]
    caption = "Running time and GPU memory of every case, as the organisers count."
    return Table.of_columns(caption, columns, *notes)


def _summary(rows: Sequence[Row], known: set[str]) -> Table:
    lines = []
    for label, column, factor, decimals in SUMMARY:
        if column in known:
            found = factor * values(rows, column)
            lines.append((label, *_statistics(found, decimals), _of(found.size, len(rows))))
    notes = [STATISTICS]
    notes += [LESIONS] if "lesion_f1" in known else []
    notes += [NET] if "flare_time_s" in known else []
    head = ("", "Mean ± SD", "Median (Q1, Q3)", "Cases")
    return Table(f"Summary of {counted(len(rows), 'case')}.", head, tuple(lines), tuple(notes))


def _counts(rows: Sequence[Row], known: set[str], limits: CaseLimits) -> Table:
    failures = Counter(str(row["status"]) for row in rows if row["status"] != State.OK)
    lines = [("All", str(len(rows))), ("Failed", str(failures.total()))]
    lines += [(f"Failed: {state}", str(count)) for state, count in sorted(failures.items())]
    for label, column, limit in _limits(limits):
        if column in known:
            found = measured(rows, column)
            lines.append((label, _share(int(np.count_nonzero(found > limit)), found.size)))
    if "predicted_ml" in known:
        lines += _healthy(rows)
    if "contaminated" in known:
        on_gpu = [row for row in rows if row["contaminated"] is not None]
        marked = sum(bool(_mark(row)) for row in on_gpu)
        lines.append(("Contaminated measurements of the GPU", _share(marked, len(on_gpu))))
    notes = (INFRA_ERROR,) if "infra_error" in failures else ()
    return Table("Cases that failed or were beyond a limit.", ("", "Cases"), tuple(lines), notes)


def _limits(limits: CaseLimits) -> Iterator[tuple[str, str, float]]:
    """Yield what a limit is called, the column that it is of, and its value."""
    if (seconds := limits.time_s) is not None:
        yield f"Beyond {seconds:g} s (organisers' running time)", "flare_time_s", seconds
    if (mib := limits.vram_mib) is not None:
        beyond = f"Beyond {as_gb(mib)}"
        yield f"{beyond} (peak above the baseline, {mib:g} MiB)", "peak_vram_mib", mib
        yield f"{beyond} (organisers' max GPU, {mib:g} MB)", "flare_max_gpu_mb", mib


def _healthy(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield what was found where there is nothing."""
    healthy = Healthy.of(rows)
    cases = "no healthy case"
    if healthy.rate is not None:
        failed = f", {healthy.failed} failed" if healthy.failed else ""
        cases = f"{healthy.rate:.3f} ({counted(healthy.cases, 'case')}{failed})"
    yield "False-positive rate of healthy cases", cases
    if (ml := healthy.ml_per_case) is not None:
        yield "False-positive volume a healthy case (ml)", f"{ml:.2f}"


def values(rows: Sequence[Row], column: str) -> Floats:
    """Return what counts of a column, where it was measured and is defined.

    A failed case counts only in what has a worst value.
    """
    return measured(
        [row for row in rows if row["status"] == State.OK or _has_worst(column)], column
    )


def measured(rows: Sequence[Row], column: str) -> Floats:
    """Return the values of a column that were measured, whatever became of the case."""
    return np.array([row[column] for row in rows if row.get(column) is not None], np.float64)


def _has_worst(column: str) -> bool:
    return column in Accuracy.__struct_fields__ or column.startswith(("dsc_", "nsd_"))


def _statistics(values: Floats, decimals: int) -> tuple[str, str]:
    """Return mean ± SD and median (Q1, Q3)."""
    if not values.size:
        return NOT_MEASURED, NOT_MEASURED
    deviation = f"{values.std(ddof=1):.{decimals}f}" if values.size > 1 else "n/a"
    low, median, high = (
        f"{value:.{decimals}f}" for value in np.quantile(values, (0.25, 0.5, 0.75))
    )
    return f"{values.mean():.{decimals}f} ± {deviation}", f"{median} ({low}, {high})"


def _share(count: int, measured: int) -> str:
    return f"{count} of {measured}" if measured else NOT_MEASURED


def _of(count: int, all_cases: int) -> str:
    return str(count) if count == all_cases else f"{count} of {all_cases}"


def _number(row: Row, column: str, decimals: int) -> str:
    value = row.get(column)
    return NOT_MEASURED if value is None else f"{value:.{decimals}f}"


def _mark(row: Row) -> str:
    return "†" if row.get("contaminated") else ""
