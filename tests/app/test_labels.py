"""app.labels: argmax, regions, and how many labels fit a byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from app.labels import DIFFERENCE_RULE, LabelRule, label_dtype, label_rule
from tests.app.small_model import CONFIG

CLASSES = LabelRule(None)
TINY = 1e-9  # sigmoid rounds it to exactly one half in float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("logits", "label"),
    [
        ((1, 0, 0), 0),
        ((0, 1, 0), 1),
        ((0, 1, 2), 2),
        ((1, 1, 0), 0),  # ties go to the lower label
        ((0, 1, 1), 1),
        ((1, 1, 1), 0),
        ((-2, -3, -2), 0),
        ((-3, -2, -2), 1),
    ],
)
def test_the_largest_class_wins(logits: tuple[float, ...], label: int, dtype: torch.dtype) -> None:
    assert CLASSES.decide(torch.tensor(logits, dtype=dtype)) == label


def test_classes_of_many_voxels() -> None:
    logits = torch.randn((4, 5, 6, 7), generator=torch.Generator().manual_seed(0))
    assert torch.equal(CLASSES.decide(logits), torch.from_numpy(logits.numpy().argmax(0)))


@pytest.mark.parametrize(
    ("values", "logits", "label"),
    [
        ((1, 2, 3), (-1, -1, -1), 0),
        ((1, 2, 3), (5, -1, -1), 1),
        ((1, 2, 3), (1, 9, -1), 2),  # painted in order, whatever is larger
        ((1, 2, 3), (9, 1, -1), 2),
        ((1, 2, 3), (9, 9, 0.1), 3),
        ((3, 2, 1), (1, 1, 1), 1),
        ((3, 2, 1), (1, -1, -1), 3),
        ((2, 1, 300), (1, 1, 1), 300),
        ((7,), (0,), 0),  # one half does not exceed one half
        ((7,), (TINY,), 0),
        ((7,), (1e-6,), 7),
        ((7,), (float("-1e-6"),), 0),
    ],
)
def test_regions_are_painted_in_order(
    values: tuple[int, ...], logits: tuple[float, ...], label: int
) -> None:
    assert LabelRule(values).decide(torch.tensor(logits)) == label


def test_the_difference_rule_is_the_argmax_of_two_classes() -> None:
    logits = torch.randn((2, 4, 5, 6), generator=torch.Generator().manual_seed(0))
    logits[:, 0] = 1  # ties
    difference = logits[1:] - logits[:1]
    assert torch.equal(DIFFERENCE_RULE.decide(difference).long(), CLASSES.decide(logits))


@pytest.mark.parametrize(
    ("rule", "logits", "possible"),
    [
        (CLASSES, (0, 0, 0), False),
        (CLASSES, (1, 0, 0.5), False),
        (CLASSES, (0, -1, 0.001), True),
        (CLASSES, (-2, -1, -3), True),
        (LabelRule((1, 2)), (-1, 0), False),
        (LabelRule((1, 2)), (-1, TINY), True),  # not foreground itself, but mixtures may be
        (LabelRule((1, 2)), (3, -1), True),
        (DIFFERENCE_RULE, (0,), False),
        (DIFFERENCE_RULE, (0.5,), True),
    ],
)
def test_may_be_foreground(rule: LabelRule, logits: tuple[float, ...], possible: bool) -> None:
    assert bool(rule.may_be_foreground(torch.tensor(logits))) is possible


@pytest.mark.parametrize("regions", [None, (1, 2, 3)])
def test_foreground_is_never_ruled_out(regions: tuple[int, ...] | None) -> None:
    logits = torch.randn((3, 30, 30), generator=torch.Generator().manual_seed(0)).half()
    rule = LabelRule(regions)
    assert not (rule.decide(logits) > 0)[~rule.may_be_foreground(logits)].any()


@pytest.mark.parametrize(
    ("foreground", "dtype"),
    [(1, torch.uint8), (254, torch.uint8), (255, torch.uint16), (300, torch.uint16)],
)
def test_label_dtype(foreground: int, dtype: torch.dtype) -> None:
    classes = replace(CONFIG, labels=tuple(f"label {i}" for i in range(foreground + 1)))
    assert label_dtype(classes) == dtype
    values = tuple(range(1, foreground + 1))
    assert label_dtype(replace(CONFIG, region_values=values)) == dtype
    assert label_dtype(replace(CONFIG, region_values=values * 2)) == dtype  # counted once


def test_label_rule_of_a_model() -> None:
    assert label_rule(CONFIG) == CLASSES
    assert label_rule(replace(CONFIG, region_values=(2, 1))) == LabelRule((2, 1))
