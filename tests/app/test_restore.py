"""app.restore: interpolating only where foreground is possible changes no label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from app import restore as restore_module
from app.labels import DIFFERENCE_RULE, LabelRule
from app.model import ModelConfig, Resampling
from app.preprocess import Grid
from app.resample import linear_taps, mix_linear, nearest_taps
from app.restore import Labels, restore, restore_slabs
from tests.app.scipy_zoom import Array, zoom
from tests.app.small_model import CONFIG

Shape = tuple[int, int, int]
CLASSES = LabelRule(None)
SPACING = (1.5, 1.5, 1.5)
CUBIC = (1.0, 1.0, 1.0)
MODEL = replace(CONFIG, spacing=SPACING)


def whole(shape: Shape, spacing: Sequence[float] = CUBIC) -> Grid:
    return Grid(shape, tuple(slice(0, n) for n in shape), tuple(spacing))


def smooth_logits(heads: int, shape: Shape, seed: int = 0) -> Tensor:
    """Blobs of foreground away from the edges; background wins by a wide margin elsewhere."""
    rng = np.random.default_rng(seed)
    logits = ndimage.gaussian_filter(rng.normal(0, 1, (heads, *shape)), (0, 1, 1, 1))
    logits /= logits.std()
    coordinates = np.stack(
        np.meshgrid(*(np.linspace(-1, 1, n) * (n > 1) for n in shape), indexing="ij")
    )
    border = np.abs(coordinates).max(0) > 0.6
    logits[0] += np.where(border, 9, 0.5)
    return torch.from_numpy(logits.astype(np.float16))


def regions(logits: Tensor) -> Tensor:
    """The same as independent heads, each compared with zero."""
    return logits[1:] - logits[:1]


def by_scipy(logits: Tensor, shape: Shape, rule: LabelRule, axis: int | None) -> Array:
    """nnU-Net's way: every voxel of every head, in float64, kept as float16."""
    heads = [zoom(head, shape, 1, axis).astype(np.float16) for head in logits.numpy()]
    labels: Array = rule.decide(torch.from_numpy(np.stack(heads).astype(np.float32))).numpy()
    return labels


def in_full(logits: Tensor, shape: Shape, rule: LabelRule, axis: int | None) -> Array:
    """The default mode without its shortcut: every voxel interpolated in float32, then decided."""
    lengths = enumerate(zip(logits.shape[1:], shape, strict=True))
    taps = [(nearest_taps if i == axis else linear_taps)(*n) for i, n in lengths]
    labels: Array = rule.decide(mix_linear(logits, taps)).numpy()
    return labels


@dataclass(frozen=True)
class Variant:
    coarse: Shape
    fine: Shape
    spacing: tuple[float, float, float] = CUBIC
    axis: int | None = None
    plans: tuple[float, float, float] = SPACING


VARIANTS = {
    "finer": Variant((12, 14, 13), (18, 21, 20)),
    "coarser": Variant((20, 22, 18), (9, 13, 11), (3.0, 2.5, 2.5)),
    "finer and coarser": Variant((14, 16, 12), (7, 33, 12), (2.2, 0.8, 1.5)),
    "separate first axis": Variant((12, 14, 13), (30, 20, 19), (5.0, 1.0, 1.0), 0),
    "separate last axis": Variant((12, 14, 13), (17, 20, 5), (1.0, 1.0, 4.0), 2),
    "the model's spacing decides": Variant(
        (12, 14, 13), (30, 20, 19), (1.0, 1.0, 4.0), 0, (6.0, 1.5, 1.5)
    ),
    "one section": Variant((1, 14, 13), (3, 21, 20)),
}


@pytest.mark.parametrize(
    ("exact", "rule"),
    [
        *((True, rule) for rule in (CLASSES, LabelRule((1, 2)), LabelRule((2, 1)))),
        *((False, rule) for rule in (CLASSES, LabelRule((1, 2)), DIFFERENCE_RULE)),
    ],
)
@pytest.mark.parametrize("name", VARIANTS)
def test_labels_are_those_of_interpolating_every_voxel(
    name: str, exact: bool, rule: LabelRule
) -> None:
    v = VARIANTS[name]
    logits = smooth_logits(2 if rule is DIFFERENCE_RULE else 3, v.coarse)
    logits = logits if exact else logits.float()
    logits = logits if rule.regions is None else regions(logits)
    config, grid = replace(CONFIG, spacing=v.plans), whole(v.fine, v.spacing)
    labels = restored(logits, rule, config, grid, torch.uint8, exact)
    expected = (by_scipy if exact else in_full)(logits, v.fine, rule, v.axis)
    assert labels.dtype == np.uint8
    assert len(np.unique(expected)) > 1
    assert np.array_equal(labels, expected)


def restored(
    logits: Tensor,
    rule: LabelRule,
    config: ModelConfig,
    grid: Grid,
    dtype: torch.dtype,
    exact: bool,
) -> Labels:
    """nnU-Net's own rounding, or in float32 a stream that has all in one slab."""
    if exact:
        return restore(logits, rule, config, grid, dtype)
    parts = restore_slabs(iter([logits.float()]), logits.shape[1:], rule, config, grid, dtype)
    back = np.argsort(config.transpose)
    return np.ascontiguousarray(np.concatenate(list(parts)).transpose(back))


def lesion(shape: Shape, at: tuple[slice, ...]) -> Tensor:
    """Two heads; the second wins inside ``at`` only."""
    logits = torch.zeros((2, *shape))
    logits[0] = 1
    logits[1][at] = 4
    return logits.half()


ALL = slice(None)
EDGES = {
    "first corner": (slice(0, 1), slice(0, 1), slice(0, 1)),
    "last corner": (slice(-1, None), slice(-1, None), slice(-1, None)),
    "a face": (ALL, ALL, slice(-2, None)),
    "everywhere": (ALL, ALL, ALL),
    "two opposite corners": (slice(None, None, 5), slice(None, None, 6), slice(None, None, 7)),
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", EDGES)
def test_foreground_that_touches_the_edge(name: str, exact: bool) -> None:
    logits = lesion((6, 7, 8), EDGES[name])
    for fine in ((9, 11, 12), (4, 5, 5), (6, 14, 4)):
        labels = restored(logits, CLASSES, MODEL, whole(fine), torch.uint8, exact)
        expected = by_scipy(logits, fine, CLASSES, None)
        assert np.array_equal(labels, expected)
    assert name != "everywhere" or labels.all()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("thick", [1, 2, 3])
@pytest.mark.parametrize("start", range(8))
def test_thin_foreground_under_a_nearest_axis(start: int, thick: int, exact: bool) -> None:
    """Nine sections to three: nearest neighbour reads sections 1, 4 and 7 and no other."""
    logits = lesion((9, 6, 6), (slice(start, start + thick), slice(2, 5), slice(2, 5)))
    grid = whole((3, 9, 9), (4.5 + 0.1, 1.0, 1.0))
    labels = restored(logits, CLASSES, MODEL, grid, torch.uint8, exact)
    seen = [section in range(start, start + thick) for section in (1, 4, 7)]
    assert labels.any((1, 2)).tolist() == seen
    assert np.array_equal(labels, by_scipy(logits, (3, 9, 9), CLASSES, 0))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("function", ["default", "torch"])
@pytest.mark.parametrize("fine", [(9, 9, 9), (6, 6, 6)])
def test_no_foreground_at_all(exact: bool, function: str, fine: Shape) -> None:
    logits = lesion((6, 6, 6), (slice(0, 0), ALL, ALL))
    config = replace(MODEL, resample_logits=Resampling(function, 1, None))
    labels = restored(logits, CLASSES, config, whole(fine), torch.uint16, exact)
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, np.zeros(fine))


@pytest.mark.parametrize("voxels", [1, 300, 700])
@pytest.mark.parametrize("name", ["finer", "coarser", "separate first axis"])
def test_slabs_leave_no_seam(name: str, voxels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    v = VARIANTS[name]
    logits = smooth_logits(3, v.coarse)
    grid = whole(v.fine, v.spacing)
    slabs: list[Shape] = []

    class Counting(LabelRule):
        def decide(self, logits: Tensor) -> Tensor:
            slabs.append(tuple(logits.shape[1:]))  # type: ignore[arg-type]
            return super().decide(logits)

    at_once = restore(logits, Counting(None), MODEL, grid, torch.uint8)
    assert len(slabs) == 1
    ((depth, *_),) = slabs
    monkeypatch.setattr(restore_module, "SLAB_VOXELS", voxels)
    slabs.clear()
    assert np.array_equal(restore(logits, Counting(None), MODEL, grid, torch.uint8), at_once)
    assert len(slabs) > 1
    assert sum(s[0] for s in slabs) == depth
    assert all(3 * np.prod(s) <= voxels or s[0] == 1 for s in slabs)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_crop_and_transpose_are_undone(transpose: Shape, exact: bool) -> None:
    scan_shape = (12, 15, 18)
    network_shape = tuple(scan_shape[i] for i in transpose)
    crop = (slice(2, 10), slice(1, 8), slice(3, 9))
    grid = Grid(network_shape, crop, SPACING)
    logits = lesion((8, 7, 6), (slice(1, 3), slice(0, 7), slice(4, 5)))
    config = replace(MODEL, transpose=transpose)
    labels = restored(logits, CLASSES, config, grid, torch.uint8, exact)
    expected = np.zeros(scan_shape, np.uint8)
    expected.transpose(transpose)[3:5, 1:8, 7:8] = 1  # a view: the network's order of axes
    assert labels.flags.c_contiguous
    assert np.array_equal(labels, expected)


@pytest.mark.parametrize("exact", [True, False])
def test_a_crop_is_pasted_where_it_was_cut_after_resampling(exact: bool) -> None:
    logits = smooth_logits(2, (12, 14, 13))
    crop = (slice(3, 21), slice(0, 21), slice(5, 25))
    labels = restored(logits, CLASSES, MODEL, Grid((30, 22, 26), crop, CUBIC), torch.uint8, exact)
    inside = restored(logits, CLASSES, MODEL, whole((18, 21, 20)), torch.uint8, exact)
    assert inside.any()
    assert np.array_equal(labels[crop], inside)
    assert np.count_nonzero(labels) == np.count_nonzero(inside)


def test_labels_beyond_a_byte() -> None:
    logits = torch.full((1, 4, 4, 4), 3.0)
    for fine in ((6, 6, 6), (4, 4, 4)):
        labels = restored(logits, LabelRule((300,)), MODEL, whole(fine), torch.uint16, exact=False)
        assert np.array_equal(labels, np.full(fine, 300, np.uint16))


def test_exact_torch_resampling_keeps_float32_between_heads() -> None:
    logits = smooth_logits(3, (12, 14, 13))
    config = replace(MODEL, resample_logits=Resampling("torch", 1, None))
    labels = restored(logits, CLASSES, config, whole((18, 21, 20)), torch.uint8, exact=True)
    zoomed = np.stack([zoom(head, (18, 21, 20), 1) for head in logits.numpy()])
    first, second = np.sort(zoomed, 0)[::-1][:2]
    clear = first - second > 1e-4  # elsewhere the last bits decide
    assert clear.mean() > 0.99
    assert np.array_equal(labels[clear], zoomed.argmax(0)[clear])
