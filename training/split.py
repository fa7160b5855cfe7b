"""Folds of a cross-validation by patient: no patient's scans are on both sides of one."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from training.errors import TrainingError

MOST_FOLDS = 5  # nnU-Net's number
Fold = dict[str, list[str]]  # train and val, as nnU-Net's splits_final.json has them


def patients(cases: Sequence[str], pattern: str | None) -> dict[str, str]:
    """Each case's patient: the only group of ``pattern``, which must match the whole name.

    Without a pattern every case is a patient. Raises TrainingError for a pattern that is none, has
    not one group, or does not match.
    """
    if pattern is None:
        return {case: case for case in cases}
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise TrainingError(f"--patient-pattern {pattern}: {error}; see Python's re") from None
    if compiled.groups != 1:
        raise TrainingError(
            f"--patient-pattern {pattern}: has {compiled.groups} groups; put the patient's part of "
            "the name in one pair of parentheses"
        )
    found = {}
    for case in cases:
        matched = compiled.fullmatch(case)
        if matched is None or not matched[1]:
            raise TrainingError(f"--patient-pattern {pattern}: finds no patient in the name {case}")
        found[case] = matched[1]
    return found


def folds(
    patient_of: Mapping[str, str],
    healthy: Sequence[str],
    seed: int,
    train_only: Sequence[str] = (),
) -> list[Fold]:
    """Five folds, or as many as there are patients with lesions; the same for the same input.

    Patients with lesions, shuffled, are dealt to the folds in turn, then healthy ones, so that
    every fold has its share of both; patients in ``train_only`` are held out of none. Raises
    TrainingError where fewer than two with lesions are left, or one of those is not there.
    """
    everyone = set(patient_of.values())
    if unknown := sorted(set(train_only) - everyone):
        raise TrainingError(f"--train-only {unknown[0]}: no case is of that patient")
    with_lesion = {patient_of[case] for case in patient_of.keys() - set(healthy)} - set(train_only)
    count = min(MOST_FOLDS, len(with_lesion))
    if count < 2:
        raise TrainingError(
            f"patients with lesions: {len(with_lesion)}; two at least are needed, one of them to "
            "validate on"
        )
    draw = random.Random(seed)
    dealt: list[str] = []
    for group in (with_lesion, everyone - with_lesion - set(train_only)):
        in_order = sorted(group)
        draw.shuffle(in_order)
        dealt += in_order
    fold_of = {patient: number % count for number, patient in enumerate(dealt)}
    return [
        {
            "train": sorted(c for c, p in patient_of.items() if fold_of.get(p) != number),
            "val": sorted(c for c, p in patient_of.items() if fold_of.get(p) == number),
        }
        for number in range(count)
    ]
