"""app.resample against scipy, which nnU-Net calls, and against the published formulas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from app.resample import (
    Sampling,
    linear_taps,
    mix_linear,
    mix_linear_like_scipy,
    nearest_taps,
    resample_spline,
    resample_torch,
    resampled_shape,
    separated_axis,
)
from tests.app.scipy_zoom import Array, nearest, zoom

CPU = torch.device("cpu")
# torch's weights come from float32 coordinates: off by 1e-6 at sample 20, times steps of up to 20.
TORCH_ERROR = 5e-5
LENGTHS = [
    (1, 1),
    (1, 4),
    (2, 1),
    (2, 5),
    (3, 2),
    (7, 7),
    (7, 13),
    (9, 40),
    (13, 7),
    (64, 47),
    (100, 3),
]
SHAPES = [
    ((5, 7, 6), (9, 4, 13)),
    ((5, 7, 6), (5, 14, 12)),
    ((12, 10, 8), (6, 5, 4)),
    ((1, 9, 4), (3, 9, 7)),
    ((11, 3, 9), (4, 8, 9)),
    ((16, 20, 18), (27, 31, 29)),
]


def noise(shape: Sequence[int], dtype: Any = np.float32, seed: int = 0) -> Array:
    values: Array = np.random.default_rng(seed).normal(0, 3, shape).astype(dtype)
    return values


def spline(
    volume: Array, shape: Sequence[int], order: int, separated: bool, dtype: torch.dtype
) -> Array:
    sections = torch.from_numpy(volume)
    result = resample_spline(
        sections.__getitem__, volume.shape, shape, order, separated, dtype, CPU
    )
    assert result.dtype == torch.float32
    array: Array = result.numpy()
    return array


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("n_in", "n_out"), LENGTHS)
def test_spline_matrix_is_scipys_zoom_of_the_identity(n_in: int, n_out: int, order: int) -> None:
    expected = ndimage.zoom(
        np.eye(n_in), (n_out / n_in, 1), order=order, mode="nearest", grid_mode=True
    )
    _, matrix = Sampling(order).matrix(n_in, n_out)
    assert matrix.shape == (n_out, n_in)
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=2e-14)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize(("shape", "new_shape"), SHAPES)
def test_mix_linear_like_scipy_has_scipys_bits(
    shape: tuple[int, ...], new_shape: tuple[int, ...], axis: int | None
) -> None:
    volume = noise(shape, np.float16)
    volume[noise(shape, seed=1) > 0] = 0  # beside zeros a weight shows all its bits
    lengths = enumerate(zip(shape, new_shape, strict=True))
    taps = [(nearest_taps if i == axis else linear_taps)(*n) for i, n in lengths]
    mixed = mix_linear_like_scipy(torch.from_numpy(volume)[None], taps)[0]
    assert mixed.dtype == torch.float64
    assert np.array_equal(mixed.numpy(), zoom(volume, new_shape, 1, axis))
    # The clip can only touch a last bit, which is gone when nnU-Net rounds to float16.
    clipped = zoom(volume, new_shape, 1, axis, clip=True).astype(np.float16)
    assert np.array_equal(mixed.numpy().astype(np.float16), clipped)


@pytest.mark.parametrize(("shape", "new_shape"), SHAPES)
def test_mix_linear_is_trilinear(shape: tuple[int, ...], new_shape: tuple[int, ...]) -> None:
    volume = torch.from_numpy(noise((2, *shape)))
    taps = [linear_taps(i, o) for i, o in zip(shape, new_shape, strict=True)]
    mixed = mix_linear(volume, taps)
    expected = F.interpolate(volume[None], new_shape, mode="trilinear", align_corners=False)[0]
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, expected, rtol=0, atol=TORCH_ERROR)


def test_mix_linear_with_a_nearest_axis_takes_whole_sections() -> None:
    volume = torch.from_numpy(noise((1, 3, 4, 4)))
    taps = [nearest_taps(3, 7), linear_taps(4, 4), linear_taps(4, 4)]
    assert torch.equal(mix_linear(volume, taps), volume[:, [0, 0, 1, 1, 1, 2, 2]])


@pytest.mark.parametrize(("n_in", "n_out"), [*LENGTHS, (8, 4), (4, 8), (6, 2), (5, 1), (3, 9)])
def test_nearest_taps_are_map_coordinates(n_in: int, n_out: int) -> None:
    taps = nearest_taps(n_in, n_out)
    assert np.array_equal(taps.low, nearest(n_in, n_out))
    assert np.array_equal(taps.low, taps.high)
    assert taps.low_weight is None
    assert taps.high_weight is None


def test_part_of_taps_reads_the_same_samples() -> None:
    whole = linear_taps(10, 23)
    part = whole.part(slice(8, 15), offset=3)
    assert np.array_equal(part.low, whole.low[8:15] - 3)
    assert np.array_equal(part.high, whole.high[8:15] - 3)
    assert whole.low_weight is not None
    assert part.low_weight is not None
    assert np.array_equal(part.low_weight, whole.low_weight[8:15])


ISO = (1.0, 1.0, 1.0)
SEPARATION = [
    # spacing, new spacing, force, axis
    (ISO, ISO, None, None),
    ((3.0, 1.0, 1.0), ISO, None, None),  # three times is not more than three times
    ((3.001, 1.0, 1.0), ISO, None, 0),
    ((1.0, 5.0, 1.0), ISO, None, 1),
    ((1.0, 1.0, 4.0), ISO, None, 2),
    (ISO, (4.0, 1.0, 1.0), None, 0),  # the new spacing, when the current one is not
    ((5.0, 1.0, 1.0), (1.0, 1.0, 4.0), None, 0),  # the current one first
    ((4.0, 4.0, 1.0), ISO, None, None),  # two longest axes
    ((4.0, 4.0, 1.0), (5.0, 1.0, 1.0), None, None),  # the current one has decided
    ((4.0, 3.999, 1.0), ISO, None, 0),
    ((1.2, 1.0, 1.0), ISO, True, 0),
    ((1.0, 1.0, 1.0001), (9.0, 1.0, 1.0), True, 2),  # forced: the current one alone
    (ISO, (9.0, 1.0, 1.0), True, None),
    ((2.0, 2.0, 1.0), ISO, True, None),
    ((9.0, 1.0, 1.0), ISO, False, None),
    (ISO, (9.0, 1.0, 1.0), False, None),
]


@pytest.mark.parametrize(("spacing", "new_spacing", "force", "axis"), SEPARATION)
def test_separated_axis(
    spacing: tuple[float, ...], new_spacing: tuple[float, ...], force: bool | None, axis: int | None
) -> None:
    assert separated_axis(spacing, new_spacing, force) == axis


@pytest.mark.parametrize(
    ("shape", "spacing", "new_spacing", "expected"),
    [
        ((3, 5, 7), ISO, (2.0, 2.0, 2.0), (2, 2, 4)),  # 1.5, 2.5, 3.5: half to even
        ((1, 9, 11), ISO, (2.0, 2.0, 2.0), (0, 4, 6)),
        ((40, 50, 60), (2.0, 1.2, 1.3), (1.5, 1.5, 1.5), (53, 40, 52)),
        ((10, 10, 10), ISO, ISO, (10, 10, 10)),
        # Divided first: 0.7 / 0.2 * 5 is below 17.5 and 0.7 * 5 / 0.2 is not; and so on.
        ((5, 15, 35), (0.7, 0.7, 0.1), (0.2, 3.0, 1.4), (17, 3, 3)),
    ],
)
def test_resampled_shape(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    new_spacing: tuple[float, ...],
    expected: tuple[int, ...],
) -> None:
    assert resampled_shape(shape, spacing, new_spacing) == expected


@pytest.mark.parametrize("separated", [False, True])
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(("shape", "new_shape"), SHAPES)
def test_resample_spline_is_scipys_zoom(
    shape: tuple[int, ...], new_shape: tuple[int, ...], order: int, separated: bool
) -> None:
    """Of float64 one rounding to float32 is left.

    The error of float32 is in normalised units: less than 0.001 HU for the usual deviations.
    """
    volume = noise(shape)
    expected = zoom(volume, new_shape, order, 0 if separated else None, clip=True)
    for dtype, error in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        result = spline(volume, new_shape, order, separated, dtype)
        np.testing.assert_allclose(result, expected, rtol=0, atol=error)


def test_equal_sections_are_not_touched() -> None:
    volume = noise((4, 6, 5))
    assert np.array_equal(spline(volume, (4, 6, 5), 3, True, torch.float32), volume)
    doubled = spline(volume, (8, 6, 5), 3, True, torch.float32)
    assert np.array_equal(doubled, volume.repeat(2, 0))


@pytest.mark.parametrize("separated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overshoot_is_clipped_to_the_range_of_the_volume_or_of_each_section(
    dtype: torch.dtype, separated: bool
) -> None:
    volume = np.zeros((3, 8, 8), np.float32)
    for section, height in enumerate((1, 100, 10)):
        volume[section, :, 4:] = height
    assert zoom(volume, (3, 17, 17), 3).max() > 105  # else nothing to clip
    result = spline(volume, (3, 17, 17), 3, separated, dtype)
    assert (result.min(), result.max()) == (0, 100)
    assert (result.max((1, 2)).tolist() == [1, 100, 10]) is separated


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize(("shape", "new_shape"), SHAPES)
def test_resample_torch_is_linear(
    shape: tuple[int, ...], new_shape: tuple[int, ...], axis: int | None
) -> None:
    volume = noise((2, *shape), np.float16)
    result = resample_torch(torch.from_numpy(volume), new_shape, axis)
    assert result.dtype == torch.float32
    expected = np.stack([zoom(v, new_shape, 1, axis) for v in volume])
    np.testing.assert_allclose(result, expected, rtol=0, atol=TORCH_ERROR)


def test_resample_torch_leaves_an_equal_shape_alone() -> None:
    volume: Tensor = torch.from_numpy(noise((1, 3, 4, 5), np.float16))
    for axis in (None, 0, 2):
        assert resample_torch(volume, (3, 4, 5), axis) is volume
