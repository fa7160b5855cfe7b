from __future__ import annotations

import numpy as np
import pytest
import torch

from app import configuration, loading, networks, predict, preprocess, sliding_window
from benchmarks import count_volume
from benchmarks.shortcuts import (
    DEFAULT,
    VARIANTS,
    Cost,
    Difference,
    Masks,
    Variant,
    difference,
    exact_table,
    shortcut_table,
    windows_table,
)

PATCHED = [v for v in VARIANTS if v.patch is not None]


def _rows(table: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()]


def test_voxels_that_differ_are_counted() -> None:
    mask, reference = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 1])
    assert difference(mask, reference) == Difference(3, 0.4)


def test_exact_table_has_a_row_for_each_scan() -> None:
    masks = Masks("a", 100, 10, Difference(2, 0.9), Difference(1, 0.95), {})
    head, _, row = _rows(exact_table([masks]))
    assert row == ["a", "100", "10", "2", "0.90000", "1", "0.95000"]
    assert len(head) == len(row)


def test_differences_are_summed_over_scans_and_the_least_dice_is_kept() -> None:
    costs = {"the default": Cost(10, 12, 900.4, 4), "without it": Cost(20, 22.5, 1000, 4)}
    scans = [{"without it": Difference(3, 0.9)}, {"without it": Difference(4, 0.8)}]
    other = [{"without it": Difference(0, 1.0)}]
    head, _, default, without = _rows(shortcut_table(costs, {"one": scans, "two": other}))
    assert default == ["the default", "10.00", "12.00", "900", "4", "", "", "", ""]
    assert without[1:] == ["20.00", "22.50", "1000", "4", "7", "0.80000", "0", "1.00000"]
    assert len(head) == len(default) == len(without)


def test_windows_are_shown_for_each_scan_and_network() -> None:
    assert _rows(windows_table(["p", "q"], {"a": [(4, 2), (64, 48)]}))[2] == ["a", "4, 2", "64, 48"]


def test_the_default_is_the_app_as_it_is() -> None:
    assert DEFAULT.python == ["-m", "app"]
    assert not DEFAULT.environment


@pytest.mark.parametrize("variant", PATCHED, ids=lambda v: v.name)
def test_what_is_patched_exists(variant: Variant) -> None:
    compile(variant.python[1], variant.name, "exec")
    assert variant.patch is not None
    root, *names = variant.patch[0].split(".")
    found: object = {
        "configuration": configuration,
        "loading": loading,
        "networks": networks,
        "predict": predict,
        "preprocess": preprocess,
        "sliding_window": sliding_window,
        "torch": torch,
    }[root]
    for name in names:
        found = getattr(found, name)
    assert callable(found)


def test_the_count_volume_is_what_the_two_factors_stand_for() -> None:
    shape, patch, like = (30, 21, 26), (12, 10, 14), torch.zeros(1)
    z, plane = sliding_window._sums_of_weights(shape, patch, 0.5, 2, like)
    total, one = count_volume.sums_of_weights(shape, patch, 0.5, 2, like)
    assert total.shape == shape
    assert torch.allclose(z * plane, total * one, rtol=1e-5)
