"""What a model's card shows of its training, from what was measured: tables and the curve.

``python -m training.card RESULTS [--output DIR] [--scores WHAT=DIR …]``

RESULTS is the folder of training.train. The model's folder gets results.md and curve.png, or DIR.
Other scans than the held-out ones are shown by the scores.csv of `python -m evaluation score`.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evaluation.tables.markup import in_markdown, markdown_table
from training.cases import SUFFIX
from training.command_line import parser
from training.ellipsoid import best
from training.errors import TrainingError
from training.files import Json, read_json
from training.validation import markdown, read_scores, shown
from volumes.command import exit_code, say
from volumes.files import write_whole

TRAINING, VALIDATION, DICE = "#1f5fa8", "#c25700", "#555555"


def card(results: Path, content: Json, others: dict[str, Path]) -> str:
    """The tables as Markdown; raises TrainingError where something to show is missing.

    content: of summary.json. others: folders with a scores.csv, by what they are scores of.
    """
    parts = [markdown(content), "![Losses and Dice by epoch](curve.png)", ""]
    if ill := [row for row in content.get("cases", ()) if row["reference_ml"] > 0]:
        parts += _beside_the_ellipsoid(ill, content["patients"], results / "validation" / "labels")
    for what, folder in others.items():
        parts += _others(what, read_scores(folder))
    return "\n".join(parts)


def _beside_the_ellipsoid(rows: list[Json], patients: dict[str, str], labels: Path) -> list[str]:
    """Held-out patients with lesions: the model beside what position alone scores."""
    ellipsoid = best([labels / f"{row['case']}{SUFFIX}" for row in rows])
    table: dict[str, list[tuple[float, float]]] = {}
    for row, by_position in zip(rows, ellipsoid.dsc, strict=True):
        table.setdefault(patients[row["case"]], []).append((row["dsc"], by_position))
    model = statistics.fmean(row["dsc"] for row in rows)
    lines = [
        (
            in_markdown(patient),
            len(pairs),
            *(f"{statistics.fmean(of):.3f}" for of in zip(*pairs, strict=True)),
        )
        for patient, pairs in table.items()
    ]
    lines.append(("all", len(rows), f"{model:.3f}", f"{ellipsoid.mean:.3f}"))
    return [
        "DSC of held-out patients, beside the best ellipsoid in the middle of every scan (axes "
        f"{ellipsoid.fraction:g} x the sides less {ellipsoid.margin_mm:g} mm at each end, chosen "
        "on these scans):",
        "",
        markdown_table(("patient", "scans", "model", "ellipsoid"), lines),
        "",
        f"Difference: {model - ellipsoid.mean:+.3f}.",
        "",
    ]


def _others(what: str, rows: list[Json]) -> list[str]:
    head = ("scan", "lesions, ml", "found by the model, ml", "DSC", "NSD", "lesion F1")
    lines = (
        (
            in_markdown(row["case"]),
            *(shown(row[name], 1) for name in ("reference_ml", "predicted_ml")),
            *(shown(row[name]) for name in ("dsc", "nsd", "lesion_f1")),
        )
        for row in rows
    )
    return [f"{what}:", "", markdown_table(head, lines), ""]


def curve(content: Json) -> Figure:
    """Losses and nnU-Net's Dice of validation patches, by epoch; one picture for each member."""
    members = content["members"]
    figure = Figure(figsize=(7, 3 * len(members)), dpi=100, layout="constrained")
    for axes, member in zip(
        figure.subplots(len(members), squeeze=False)[:, 0], members, strict=True
    ):
        epochs = range(1, len(member["losses"]) + 1)
        axes.plot(epochs, member["losses"], color=TRAINING, label="loss, training")
        axes.plot(epochs, member["validation_losses"], "--", color=VALIDATION, label="held out")
        axes.plot(epochs, member["pseudo_dice"], ":", color=DICE, label="Dice of held-out patches")
        axes.set(xlabel="epoch", ylabel="loss, Dice", title=member["configuration"])
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    return figure


def _named(text: str) -> tuple[str, Path]:
    what, equals, folder = text.partition("=")
    if not (what and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r}: should be WHAT=DIR")
    return what, Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("card", __doc__)
    add = options.add_argument
    add("results", type=Path, help="by training.train")
    add("--output", type=Path, help="another folder than the model's")
    add("--scores", type=_named, nargs="+", default=[], metavar="WHAT=DIR", help="other scans")
    args = options.parse_args(arguments)

    def do() -> None:
        content = read_json(args.results / "summary.json", "give training.train's --output")
        output = args.output or Path(content["model"])
        if not (args.output or output.is_dir()):
            raise TrainingError(f"{output}: the model is not there any more; choose an --output")
        write_whole(output / "results.md", card(args.results, content, dict(args.scores)))
        picture = io.BytesIO()
        FigureCanvasAgg(curve(content)).print_png(picture)
        write_whole(output / "curve.png", picture.getvalue())
        say(f"card: {output / 'results.md'}, {output / 'curve.png'}")
        say(f"next: python -m app --model {output} --input SCANS --output MASKS")

    return exit_code(do)


if __name__ == "__main__":
    sys.exit(main())
