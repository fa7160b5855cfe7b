"""Chooses the thresholds of a model's lesion filter on cases that have reference masks.

``python -m training.lesion_filter MODEL --data DIR``

DIR is one of training.prepare, whose held-out fold is taken, or scans and masks in nnU-Net's raw
layout or FLARE's (`training.cases`): cases that the model was not trained on. Its network runs once
a case; every filter of a grid is then judged as the app would apply it (`app.lesion_filter`), by
FLARE's own mean DSC, in which a healthy case counts 1 if no lesion is seen in it and else 0. If one
is better than none it goes into model.json, and the app does the rest; ties go to the weakest.

Partial masks count as full ones, here as in training, and as in both papers. A filter can take out
false lesions that are smaller or less likely than true ones. It cannot tell a false lesion from a
true one that nobody has marked, and is rewarded for taking out either: choose it on cases whose
masks are complete. Nor can it bring back what a network has learnt from partial masks to overlook.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app import load
from app.image import read_image
from app.lesion_filter import find as find_lesions
from app.lesion_filter import take_out, voxel_ml
from app.memory.budget import BudgetError
from app.model import MANIFEST, LesionFilter, ModelConfig, load_model, save_manifest
from app.predict import Predictor
from app.preprocess import Prepared
from evaluation import challenges
from evaluation.scoring.classes import score
from evaluation.tables.markup import markdown_table
from training.cases import Case, find
from training.checks import check_all
from training.command_line import parser
from training.errors import TrainingError
from training.prepare import RECORD
from training.prepared import cases as prepared_cases
from training.prepared import held_out, read_record
from volumes.command import exit_code, say

VOLUMES_ML = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # a ball of 10 mm has 0.5
PROBABILITIES = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # every lesion has more than 0.5
DECIMALS = 4  # of a mean, as it is shown
FILTERS = tuple(LesionFilter(ml, p, evidence="") for ml in VOLUMES_ML for p in PROBABILITIES)


@dataclass(frozen=True)
class Judged:
    """One case under one filter: its scores, and how many ``lesions`` are left in it."""

    dsc: float
    nsd: float
    lesions: int
    healthy: bool

    @property
    def false_alarm(self) -> bool:
        """Whether something is seen in a healthy case: only then has it a DSC of 0."""
        return self.healthy and self.dsc == 0


@dataclass(frozen=True)
class Effect:
    """What a filter does to all cases. Means are rounded as they are shown, so ties are seen."""

    rule: LesionFilter
    cases: tuple[Judged, ...]

    @cached_property
    def dsc(self) -> float:
        """Mean of all cases."""
        return round(statistics.fmean(case.dsc for case in self.cases), DECIMALS)

    @cached_property
    def nsd(self) -> float:
        """Mean of all cases."""
        return round(statistics.fmean(case.nsd for case in self.cases), DECIMALS)

    @property
    def lesions(self) -> int:
        """How many are left."""
        return sum(case.lesions for case in self.cases)

    @property
    def false_alarms(self) -> int:
        """In how many healthy cases a lesion is seen."""
        return sum(case.false_alarm for case in self.cases)


@dataclass(frozen=True)
class Choice:
    """All filters, FILTERS in their order, the first of which takes nothing out; and the best."""

    effects: tuple[Effect, ...]
    source: str  # of the cases

    @property
    def without(self) -> Effect:
        """No filter."""
        return self.effects[0]

    @cached_property
    def best(self) -> Effect:
        """The highest DSC; of equal ones the most lesions left, then the lowest thresholds."""
        return max(
            self.effects,
            key=lambda e: (e.dsc, e.lesions, -e.rule.min_volume_ml, -e.rule.min_probability),
        )

    @property
    def chosen(self) -> LesionFilter | None:
        """The best filter with its evidence; None if none is better than nothing."""
        if self.best.dsc <= self.without.dsc:
            return None
        return dataclasses.replace(self.best.rule, evidence=self._evidence())

    @property
    def verdict(self) -> str:
        """What was chosen and why, in a line."""
        if self.chosen is None:
            return f"No lesion filter raises the mean DSC of {self._counts()}."
        rule = self.chosen
        return (
            f"Lesion filter: {rule.min_volume_ml:g} ml and a probability of "
            f"{rule.min_probability:g} at least. {rule.evidence}"
        )

    def markdown(self) -> str:
        """Every filter's mean DSC and false alarms, and the verdict."""
        brackets = f"; in brackets, in how many of {self._healthy} healthy ones a lesion is seen"
        rows = [
            [
                f"{ml:g} ml" if ml else "any volume",
                *(self._cell(e) for e in self.effects if e.rule.min_volume_ml == ml),
            ]
            for ml in VOLUMES_ML
        ]
        lines = [
            f"Mean DSC of {self._counts()} by the least volume of a lesion and the least "
            f"probability of its likeliest voxel{brackets if self._healthy else ''}.",
            "",
            markdown_table(["", "any probability", *(f"{p:g}" for p in PROBABILITIES[1:])], rows),
            "",
            self.verdict,
            "",
        ]
        return "\n".join(lines)

    @property
    def _healthy(self) -> int:
        return sum(case.healthy for case in self.without.cases)

    def _counts(self) -> str:
        return f"{len(self.without.cases)} cases, {self._healthy} of them healthy ({self.source})"

    def _cell(self, effect: Effect) -> str:
        text = f"{effect.dsc:.{DECIMALS}f}"
        text += f" ({effect.false_alarms})" if self._healthy else ""
        return f"**{text}**" if self.chosen is not None and effect is self.best else text

    def _evidence(self) -> str:
        a, b = self.without, self.best
        alarms = f"healthy cases with false positives {a.false_alarms} -> {b.false_alarms}, "
        return (
            f"{self._counts()}: mean DSC {a.dsc:.4f} -> {b.dsc:.4f}, NSD {a.nsd:.4f} -> "
            f"{b.nsd:.4f}, {alarms if self._healthy else ''}lesions {a.lesions} -> {b.lesions}. "
            "The thresholds were chosen on these same cases; expect less on others."
        )


def choose(folder: Path, cases: Sequence[Case], source: str, device: str = "auto") -> Choice:
    """Judge FILTERS for an exported model and write the best into its model.json, if it helps.

    source: where the cases are from, in a few words, for the evidence. Raises TrainingError for a
    model or cases that no filter can be chosen for, and ModelError.
    """
    config = load_model(folder).config
    _refuse_model(folder / MANIFEST, config)
    _refuse_cases(cases)
    try:
        predictor = load(folder.resolve(), device)
    except BudgetError as error:
        raise TrainingError(str(error)) from None
    by_case = []
    for case in cases:
        judged = _judged(predictor, case)
        by_case.append(judged)
        found = judged[0]
        say(f"{case.name}: {found.lesions} lesions, DSC {found.dsc:.3f}")
    by_filter = zip(FILTERS, zip(*by_case, strict=True), strict=True)
    choice = Choice(tuple(Effect(rule, judged) for rule, judged in by_filter), source)
    if choice.chosen is not None:
        save_manifest(folder, dataclasses.replace(config, lesion_filter=choice.chosen))
    return choice


def judge(
    predictor: Predictor,
    logits: Tensor,
    scan: Prepared,
    reference: np.ndarray,
    spacing_zyx: Sequence[float],
) -> list[Judged]:
    """One case under each of FILTERS, from what `Predictor.logits_on_grid` says of it.

    reference: (z, y, x) on the scan's grid, of ``spacing_zyx`` mm; 1 is lesion. Filters that keep
    the same lesions are restored and scored once.
    """
    lesions = find_lesions(logits[0].numpy(), voxel_ml(scan.grid, scan.shape))
    rules = challenges.load("flare24").scoring
    known: dict[bytes, Judged] = {}
    judged = []
    for rule in FILTERS:
        kept = lesions.kept(rule)
        if kept.tobytes() not in known:
            left = logits.clone()
            take_out(left[0].numpy(), lesions, kept)
            scores = score(rules, predictor.labels(left, scan), reference, spacing_zyx)
            count = int(np.count_nonzero(kept))
            known[kept.tobytes()] = Judged(scores.dsc, scores.nsd, count, not reference.any())
        judged.append(known[kept.tobytes()])
    return judged


def _judged(predictor: Predictor, case: Case) -> list[Judged]:
    reader = predictor.config.reader
    scan = read_image(case.scan, reader)
    reference = np.zeros(scan.voxels.shape, np.uint8)
    if case.mask is not None:
        reference = read_image(case.mask, reader).voxels
    try:
        logits, prepared = predictor.logits_on_grid([scan])
    except (ValueError, torch.OutOfMemoryError) as error:
        raise TrainingError(f"{case.scan}: {' '.join(str(error).split())}") from None
    return judge(predictor, logits, prepared, reference, scan.spacing_zyx)


def _refuse_model(manifest: Path, config: ModelConfig) -> None:
    if config.lesion_filter is not None:
        raise TrainingError(
            f"{manifest}: has a lesion filter already; set lesion_filter to null to choose again"
        )
    if config.ensemble or config.previous_stage is not None:
        raise TrainingError(f"{manifest}: has more than one model; a filter is for one alone")
    if config.region_values is not None or len(config.labels) != 2 or len(config.channels) != 1:
        raise TrainingError(
            f"{manifest}: has labels {', '.join(config.labels)} and channels "
            f"{', '.join(config.channels)}; a filter is for background and lesion in CT alone"
        )


def _refuse_cases(cases: Sequence[Case]) -> None:
    """Raise TrainingError, with a line for each thing that is wrong, unless all can be scored."""
    problems = [problem for one in check_all(list(cases), 1) for problem in one.problems]
    if not problems and all(case.healthy for case in cases):
        problems = [
            "--data: has no case with a lesion; a filter that takes everything out would be best"
        ]
    if problems:
        raise TrainingError(*problems)


def _cases(data: Path, healthy: Path | None, fold: str | None) -> tuple[list[Case], str]:
    """The cases of ``--data``, and where they are from."""
    name = data.resolve().name
    if (data / RECORD).exists():
        if healthy is not None:
            raise TrainingError(f"--healthy: {data} is prepared and knows; leave it out")
        record, fold = read_record(data), fold or "0"
        names = held_out(data, record, fold)
        if not names:
            raise TrainingError(f"--fold {fold}: holds nothing out to choose on; give a number")
        return prepared_cases(data, record, names), f"fold {fold} of {name}"
    if fold is not None:
        raise TrainingError(f"--fold {fold}: {data} is not of training.prepare; leave it out")
    found = find(data, healthy)
    if found.problems:
        raise TrainingError(*found.problems)
    return list(found.cases), name


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("lesion_filter", __doc__)
    add = options.add_argument
    add("model", type=Path, metavar="MODEL", help="exported, such as weights/NAME")
    add("--data", type=Path, required=True, help="of training.prepare, or scans and masks")
    add("--healthy", type=Path, help="names of scans without a lesion in a file, or their folder")
    add("--fold", help="of prepared data: the one that was held out (0)")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    args = options.parse_args(arguments)

    def do() -> None:
        cases, source = _cases(args.data, args.healthy, args.fold)
        choice = choose(args.model, cases, source, args.device)
        print(f"\n{choice.markdown()}")
        written = "not changed" if choice.chosen is None else "has it now"
        say(f"{args.model / MANIFEST}: {written}")

    return exit_code(do)


if __name__ == "__main__":
    sys.exit(main())
