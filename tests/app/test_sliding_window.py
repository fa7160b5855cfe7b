"""app.sliding_window against nnU-Net's published formulas and scipy's Gaussian filter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from app.sliding_window import importance_map, mirrored, predict_logits, window_starts, windows
from tests.app.at_work import ignore


def copy(x: Tensor) -> Tensor:
    return x.clone()


@pytest.mark.parametrize(
    ("size", "patch", "step_size", "starts"),
    [
        (110, 64, 0.5, [0, 23, 46]),  # the example in nnU-Net's compute_steps_for_sliding_window
        (64, 64, 0.5, [0]),
        (65, 64, 0.5, [0, 1]),
        (96, 64, 0.5, [0, 32]),
        (97, 64, 0.5, [0, 16, 33]),  # 16.5 goes to the even neighbour
        (99, 64, 0.5, [0, 18, 35]),  # and so does 17.5
        (128, 64, 0.5, [0, 32, 64]),
        (200, 64, 1.0, [0, 45, 91, 136]),
        (128, 64, 1.0, [0, 64]),
        (164, 64, 0.7, [0, 33, 67, 100]),
        (1, 1, 0.5, [0]),
        (3, 1, 0.5, [0, 1, 2]),  # a patch of one section
    ],
)
def test_window_starts(size: int, patch: int, step_size: float, starts: list[int]) -> None:
    assert window_starts(size, patch, step_size) == starts


def test_windows_go_through_the_last_axis_first() -> None:
    found = list(windows((4, 6, 5), (4, 4, 4), 0.5))
    corners = [tuple(s.start for s in window) for window in found]
    assert corners == [(0, 0, 0), (0, 0, 1), (0, 2, 0), (0, 2, 1)]
    assert all(s.stop - s.start == 4 for window in found for s in window)


@pytest.mark.parametrize("step_size", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 17, 8), (23, 11, 30)])
def test_windows_cover_every_voxel(shape: tuple[int, int, int], step_size: float) -> None:
    seen = np.zeros(shape, int)
    for window in windows(shape, (8, 8, 8), step_size):
        assert seen[window].shape == (8, 8, 8)
        seen[window] += 1
    assert seen.min() >= 1


PATCHES = [(8, 8, 8), (16, 32, 24), (5, 7, 6), (1, 4, 9), (48, 56, 64)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("patch", PATCHES)
def test_importance_map_is_scipys_gaussian(patch: tuple[int, ...], dtype: torch.dtype) -> None:
    impulse = np.zeros(patch)
    impulse[tuple(n // 2 for n in patch)] = 1
    gaussian = ndimage.gaussian_filter(
        impulse, [n / 8 for n in patch], order=0, mode="constant", cval=0, truncate=4
    )
    expected = torch.from_numpy(gaussian / (gaussian.max() / 10)).to(dtype)
    expected[expected == 0] = expected[expected > 0].min()
    weights = importance_map(patch, dtype)
    assert weights.dtype == dtype
    assert torch.equal(weights, expected)
    assert weights.min() > 0
    assert weights.max() == 10


@pytest.mark.parametrize(
    "shape",
    [
        (8, 8, 8),
        (19, 9, 30),
        (3, 8, 20),  # smaller along one axis
        (3, 1, 7),  # along all
    ],
)
def test_an_identity_network_gives_the_volume(shape: tuple[int, ...]) -> None:
    volume = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    before = volume.clone()
    patches = []

    def network(x: Tensor) -> Tensor:
        patches.append(x.shape)
        return x.clone()

    logits = predict_logits(volume, network, (8, 8, 8), 0.5, 2, torch.float32, ignore)
    assert set(patches) == {(1, 2, 8, 8, 8)}
    assert logits.shape == volume.shape
    # Sums of up to 27 products are divided by the sum of their weights: a few units of float32.
    torch.testing.assert_close(logits, volume, rtol=2e-6, atol=1e-6)
    assert torch.equal(volume, before)


def test_half_precision_is_accumulated_in_half_precision() -> None:
    volume = torch.randn((1, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    logits = predict_logits(volume, copy, (8, 8, 8), 0.5, 1, torch.float16, ignore)
    assert logits.dtype == torch.float16
    # At the corners the weights have few bits left, and nnU-Net has the same loss there.
    error = (logits.float() - volume)[:, 4:8, 4:8, 4:8].abs().max()
    assert 1e-5 < error < 1e-2  # float16 has eleven bits


def test_padding_is_zero_and_its_lower_side_gets_the_smaller_half() -> None:
    volume = torch.ones((1, 5, 8, 3))
    patches: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        patches.append(x.clone())
        return x.clone()

    predict_logits(volume, network, (8, 8, 8), 0.5, 1, torch.float32, ignore)
    (patch,) = patches
    expected = torch.zeros((1, 1, 8, 8, 8))
    expected[:, :, 1:6, :, 2:5] = 1
    assert torch.equal(patch, expected)


def test_overlapping_windows_are_averaged_by_importance() -> None:
    numbers = itertools.count(1)

    def network(x: Tensor) -> Tensor:
        return torch.full_like(x, next(numbers))

    logits = predict_logits(
        torch.zeros(1, 8, 8, 14), network, (8, 8, 8), 0.5, 1, torch.float32, ignore
    )
    weights = importance_map((8, 8, 8), torch.float64).numpy()
    top, bottom = np.zeros((8, 8, 14)), np.zeros((8, 8, 14))
    for number, start in enumerate((0, 3, 6), start=1):
        top[..., start : start + 8] += number * weights
        bottom[..., start : start + 8] += weights
    np.testing.assert_allclose(logits[0], top / bottom, rtol=1e-5)
    assert logits[0, 0, 0, 0] == pytest.approx(1, rel=1e-6)
    assert logits[0, 0, 0, -1] == pytest.approx(3, rel=1e-6)


def test_progress_counts_windows() -> None:
    told: list[tuple[int, int]] = []
    predict_logits(
        torch.zeros(1, 8, 8, 14),
        copy,
        (8, 8, 8),
        0.5,
        1,
        torch.float32,
        lambda done, of: told.append((done, of)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


AXES = [(0,), (2,), (0, 1), (0, 2), (0, 1, 2)]


def whole_numbers() -> Tensor:
    return torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(1, 2, 3, 4, 5)


@pytest.mark.parametrize("axes", [(), *AXES])
def test_mirroring_does_not_change_a_network_that_does_not_see_it(axes: tuple[int, ...]) -> None:
    calls: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        calls.append(x.clone())
        return x * x - 3

    x = whole_numbers()
    assert torch.equal(mirrored(network, axes)(x), x * x - 3)
    assert len(calls) == 2 ** len(axes)
    expected = {tuple(torch.flip(x, [a + 2 for a in c]).flatten().tolist()) for c in subsets(axes)}
    assert {tuple(c.flatten().tolist()) for c in calls} == expected


def subsets(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("ramp_axis", [0, 1, 2])
def test_mirroring_averages_a_network_that_sees_it(axes: tuple[int, ...], ramp_axis: int) -> None:
    x = whole_numbers()
    n = x.shape[ramp_axis + 2]
    ramp = torch.arange(n, dtype=torch.float32).view([n if i == ramp_axis else 1 for i in range(3)])
    result = mirrored(lambda x: x * ramp, axes)(x)
    # Half of the passes see the ramp reversed, if its axis is mirrored at all.
    expected = x * (n - 1) / 2 if ramp_axis in axes else x * ramp
    assert torch.equal(result, expected)
