"""app.preprocess against nnU-Net's formulas and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from app.crop import body_box, nonzero_box
from app.model import ModelConfig, Normalization, Resampling
from app.preprocess import Grid, normalise, prepare, preprocess
from tests.app.scipy_zoom import Array, zoom
from tests.app.small_model import CONFIG, CT, SPACING, with_channels

CPU = torch.device("cpu")
SHAPE = (5, 7, 6)
WHOLE = tuple(slice(0, n) for n in SHAPE)
NONE, RESCALE = (
    Normalization("NoNormalization", False),
    Normalization("RescaleTo01Normalization", False),
)
RGB = Normalization("RGBTo01Normalization", False)
Z_SCORE = Normalization("ZScoreNormalization", False)
MASKED = Normalization("ZScoreNormalization", True)


def scan(shape: Sequence[int] = SHAPE, dtype: Any = np.int16, seed: int = 0) -> Array:
    """Values on both sides of the clip of CT, none of them zero."""
    values = np.random.default_rng(seed).integers(-400, 400, shape)
    values[values == 0] = 1
    result: Array = values.astype(dtype)
    return result


def run(
    channels: Sequence[Array],
    spacing: Sequence[float],
    config: ModelConfig,
    exact: bool = True,
) -> tuple[Array, Grid]:
    before = [c.copy() for c in channels]
    scan = prepare(channels, spacing, config, exact, False)
    data = preprocess(scan, config, torch.float64 if exact else torch.float32, CPU)
    assert data.dtype == torch.float32
    for channel, original in zip(channels, before, strict=True):
        assert np.array_equal(channel, original)  # the caller's voxels are not touched
    array: Array = data.numpy()
    return array, scan.grid


def ct_formula(values: Array) -> Array:
    """nnU-Net's CTNormalization with the properties of CT."""
    clipped = np.clip(values.astype(np.float64), -130, 161)
    scaled: Array = (clipped - 34.5) / 50.25
    return scaled


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.int32])
def test_ct_is_clipped_and_scaled(dtype: Any) -> None:
    voxels = np.abs(scan()).astype(dtype) if dtype == np.uint16 else scan(dtype=dtype)
    data, grid = run([voxels], SPACING, CONFIG)
    np.testing.assert_allclose(data[0], ct_formula(voxels), rtol=0, atol=5e-7)
    assert data.max() == pytest.approx((161 - 34.5) / 50.25)
    assert grid == Grid(SHAPE, WHOLE, SPACING)


def test_a_standard_deviation_of_zero_does_not_divide() -> None:
    config = replace(CONFIG, normalization=(replace(CT, std=0.0, mean=161.0),))
    data, _ = run([np.full(SHAPE, 500, np.int16)], SPACING, config)
    assert np.array_equal(data[0], np.zeros(SHAPE))


SCHEMES = {
    "none": (NONE, lambda v: v),
    "rescale": (RESCALE, lambda v: (v - v.min()) / (v.max() - v.min())),
    "z-score": (Z_SCORE, lambda v: (v - v.mean()) / v.std()),
    "rgb": (RGB, lambda v: v / 255),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_other_schemes(name: str) -> None:
    scheme, formula = SCHEMES[name]
    voxels = scan() % 256
    data, _ = run([voxels], SPACING, replace(CONFIG, normalization=(scheme,)))
    np.testing.assert_allclose(data[0], formula(voxels.astype(np.float64)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheme", [RESCALE, Z_SCORE, MASKED])
def test_a_constant_scan_becomes_zero(scheme: Normalization) -> None:
    voxels = np.full(SHAPE, 40, np.int16)
    data, _ = run([voxels], SPACING, replace(CONFIG, normalization=(scheme,)))
    assert np.array_equal(data[0], np.zeros(SHAPE))


@pytest.mark.parametrize("scheme", [NONE, RESCALE, Z_SCORE, MASKED, RGB])
@pytest.mark.filterwarnings("error")
def test_a_scan_of_zeros_stays_one(scheme: Normalization) -> None:
    voxels = np.zeros(SHAPE, np.int16)
    data, grid = run([voxels], SPACING, replace(CONFIG, normalization=(scheme,)))
    assert grid.crop == WHOLE
    assert np.array_equal(data[0], voxels)


@pytest.mark.parametrize(("value", "found"), [(-1, "-1.0"), (256, "256.0")])
def test_rgb_out_of_range(value: int, found: str) -> None:
    voxels = scan() % 255 + 1
    voxels[2, 2, 2] = value
    with pytest.raises(ValueError, match=rf"RGB channel lie in 0\.\.255, found .*{found}"):
        run([voxels], SPACING, replace(CONFIG, normalization=(RGB,)))


def inside(box: tuple[tuple[int, int], ...], shape: Sequence[int] = SHAPE) -> Array:
    voxels = np.zeros(shape, np.int16)
    voxels[tuple(slice(*b) for b in box)] = -7
    return voxels


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], ((0, 5), (0, 7), (0, 6))),  # all zero: all of it
        ([((1, 3), (2, 7), (0, 1))], ((1, 3), (2, 7), (0, 1))),
        ([((4, 5), (6, 7), (5, 6))], ((4, 5), (6, 7), (5, 6))),
        ([((0, 1), (2, 3), (4, 5)), ((3, 4), (1, 2), (4, 6))], ((0, 4), (1, 3), (4, 6))),
        ([((0, 5), (0, 7), (0, 6)), ((1, 2), (1, 2), (1, 2))], ((0, 5), (0, 7), (0, 6))),
    ],
)
def test_nonzero_box_is_that_of_any_channel(
    boxes: list[tuple[tuple[int, int], ...]], expected: tuple[tuple[int, int], ...]
) -> None:
    channels = [inside(box) for box in boxes] or [np.zeros(SHAPE, np.int16)]
    assert nonzero_box(channels) == tuple(slice(*e) for e in expected)


def test_the_body_is_what_is_not_air() -> None:
    air = np.full(SHAPE, -1000, np.int16)
    assert body_box(air) == tuple(slice(0, n) for n in SHAPE)
    air[1:3, 2:4, 5] = -100  # fat
    air[2, 6, 2] = 30
    air[0, 0, 0] = -500
    assert body_box(air) == (slice(1, 3), slice(2, 7), slice(2, 6))
    air[0, 0, 0] = -499
    assert body_box(air) == (slice(0, 3), slice(0, 7), slice(0, 6))


def test_statistics_are_those_of_the_crop() -> None:
    voxels = np.zeros((9, 10, 11), np.int16)
    voxels[1:6, 2:9, 4:10] = scan()
    data, grid = run([voxels], SPACING, replace(CONFIG, normalization=(Z_SCORE,)))
    part = voxels[1:6, 2:9, 4:10].astype(np.float64)
    assert grid.crop == (slice(1, 6), slice(2, 9), slice(4, 10))
    assert grid.shape == (9, 10, 11)
    assert grid.cropped_shape == SHAPE
    np.testing.assert_allclose(data[0], (part - part.mean()) / part.std(), rtol=1e-5, atol=1e-6)


def test_channels_share_the_crop_and_keep_their_order() -> None:
    one, two = inside(((1, 3), (1, 3), (1, 3))), inside(((2, 4), (2, 6), (0, 2)))
    config = replace(with_channels(2), normalization=(NONE, CT))
    data, grid = run([one, two], SPACING, config)
    assert grid.crop == (slice(1, 4), slice(1, 6), slice(0, 3))
    assert np.array_equal(data[0], one[grid.crop])
    np.testing.assert_allclose(data[1], ct_formula(two[grid.crop]), rtol=0, atol=5e-7)


def hollow(open_at: tuple[int, int, int] | None) -> Array:
    """A box of ones around a hole, with a way out at one voxel of its wall."""
    mask = np.zeros((7, 8, 9), bool)
    mask[1:6, 1:7, 1:8] = True
    mask[3, 3:5, 3:6] = False
    if open_at:
        mask[open_at] = False
    return mask


MASKS = {
    "closed hole": hollow(None),
    "open hole": hollow((3, 3, 6)) & hollow((3, 3, 7)),
    "hole open through a corner": hollow((2, 2, 2)) & hollow((1, 1, 1)),
    "no hole": np.ones((4, 5, 6), bool),
    "random": np.random.default_rng(0).random((20, 21, 22)) < 0.7,
    "dense": np.random.default_rng(1).random((20, 21, 22)) < 0.85,
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", MASKS)
def test_the_mask_of_the_z_score_has_its_holes_filled_as_by_scipy(name: str, exact: bool) -> None:
    mask = MASKS[name]
    voxels = np.where(mask, scan(mask.shape), 0).astype(np.int16)
    filled = ndimage.binary_fill_holes(mask)
    values = voxels.astype(np.float64)
    mean, std = values[filled].mean(), values[filled].std()
    expected = np.where(filled, (values - mean) / std, 0)
    whole = tuple(slice(0, n) for n in mask.shape)
    (normaliser,) = normalise([voxels], whole, [MASKED], exact)
    result = normaliser(torch.from_numpy(voxels).float(), ...)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    section = normaliser(torch.from_numpy(voxels[:, 2]).float(), (slice(None), 2))
    assert torch.equal(section, result[:, 2])


def test_transpose_comes_first() -> None:
    voxels = scan((5, 7, 6))
    voxels[0] = 0  # a crop, to see it transposed too
    config = replace(CONFIG, transpose=(2, 0, 1), spacing=(2.0, 3.0, 2.5))
    data, grid = run([voxels], (4.0, 3.0, 1.5), config)
    moved = np.ascontiguousarray(voxels.transpose(2, 0, 1))
    plain, _ = run([moved], (1.5, 4.0, 3.0), replace(config, transpose=(0, 1, 2)))
    assert np.array_equal(data, plain)
    assert grid == Grid((6, 5, 7), (slice(0, 6), slice(1, 5), slice(0, 7)), (1.5, 4.0, 3.0))
    assert data.shape == (1, 4, 5, 8)  # 6 * 1.5 / 2 = 4.5, half to even


@pytest.mark.parametrize(("exact", "error"), [(True, 1e-6), (False, 1e-5)])
@pytest.mark.parametrize(
    ("axis", "spacing", "new_spacing", "new_shape"),
    [
        (None, (2.0, 1.2, 1.3), (1.5, 1.5, 1.5), (13, 10, 12)),
        (0, (6.0, 1.2, 1.2), (3.0, 1.5, 1.5), (20, 10, 11)),
        (1, (1.2, 6.0, 1.2), (1.5, 3.0, 1.5), (8, 24, 11)),
        (2, (1.2, 1.2, 6.0), (1.5, 1.5, 3.0), (8, 10, 28)),
    ],
)
def test_normalised_then_resampled(
    axis: int | None,
    spacing: tuple[float, ...],
    new_spacing: tuple[float, float, float],
    new_shape: tuple[int, ...],
    exact: bool,
    error: float,
) -> None:
    """In three dimensions, or by sections across an axis."""
    voxels = scan((10, 12, 14))
    data, _ = run([voxels], spacing, replace(CONFIG, spacing=new_spacing), exact)
    expected = zoom(ct_formula(voxels), new_shape, 3, axis, clip=True)
    np.testing.assert_allclose(data[0], expected, rtol=0, atol=error)


def test_masked_z_score_is_resampled_with_its_own_sections() -> None:
    """The mask is indexed by section while the volume is resampled: each axis must match."""
    mask = np.zeros((9, 10, 11), bool)
    mask[1:8, 2:9, 1:9] = np.random.default_rng(3).random((7, 7, 8)) < 0.8
    voxels = np.where(mask, scan(mask.shape), 0).astype(np.int16)
    config = replace(CONFIG, normalization=(MASKED,), spacing=(2.0, 2.0, 3.0))
    data, grid = run([voxels], (1.6, 1.6, 6.0), config)
    filled = ndimage.binary_fill_holes(mask)[grid.crop]
    values = voxels[grid.crop].astype(np.float64)
    z_score = np.where(filled, (values - values[filled].mean()) / values[filled].std(), 0)
    expected = zoom(z_score, (6, 6, 16), 3, axis=2, clip=True)
    np.testing.assert_allclose(data[0], expected, rtol=0, atol=1e-5)


def test_torch_resampling_is_linear_for_the_scan_too() -> None:
    config = replace(CONFIG, spacing=(1.5, 1.5, 1.5), resample_data=Resampling("torch", 3, None))
    voxels = scan((10, 12, 14))
    data, _ = run([voxels], (2.0, 1.2, 1.3), config)
    expected = zoom(ct_formula(voxels), (13, 10, 12), 1)
    np.testing.assert_allclose(data[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_a_scan_thinner_than_a_voxel_of_the_model(transpose: tuple[int, int, int]) -> None:
    config = replace(CONFIG, transpose=transpose, spacing=(3.0, 3.0, 3.0))
    message = r"less than one voxel of the model's \(3\.0, 3\.0, 3\.0\) mm; check the spacing"
    with pytest.raises(ValueError, match=message):
        run([scan((1, 20, 20))], (1.0, 1.5, 1.5), config)


def test_a_scan_of_more_voxels_than_a_person_has_is_refused_before_one_is_made() -> None:
    config = replace(CONFIG, spacing=(1.0, 1.0, 1.0))
    message = r"the scan has \(2000, 2000, 2000\) voxels, more than 2147483648; check the spacing"
    with pytest.raises(ValueError, match=message):
        run([scan((20, 20, 20))], (100.0, 100.0, 100.0), config)
