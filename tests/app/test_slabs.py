"""Each stage of the stream by itself, against the function that has everything at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.labels import DIFFERENCE_RULE, LabelRule
from app.preprocess import Grid, limits, normalise
from app.resample import Sampling, advance, resample_slabs, resample_spline, resample_torch
from app.restore import restore_slabs
from app.sliding_window import importance_map, predict_logits, predict_slabs
from tests.app.at_work import PATCH, ignore, noise, slid
from tests.app.small_model import CONFIG, CT
from tests.app.test_restore import restored, smooth_logits

CPU = torch.device("cpu")
CUBIC = Sampling(3)
LENGTHS = [(1, 4), (9, 40), (40, 9), (100, 100), (150, 225), (300, 97), (97, 300)]
SHAPES = [
    ((5, 7, 6), (9, 4, 13)),
    ((70, 7, 6), (150, 7, 6)),
    ((150, 6, 7), (70, 9, 5)),
    ((400, 5, 6), (31, 4, 4)),
    ((60, 8, 9), (60, 5, 5)),
    ((1, 9, 4), (3, 9, 7)),
]


@pytest.mark.parametrize("sampling", [CUBIC, Sampling(1), Sampling(1, like_torch=True)])
@pytest.mark.parametrize(("n_in", "n_out"), LENGTHS)
def test_a_band_is_the_matrix_within_float32(n_in: int, n_out: int, sampling: Sampling) -> None:
    whole = sampling.matrix(n_in, n_out)[1]
    for start in range(0, n_out, 8):
        outputs = slice(start, min(start + 8, n_out))
        inputs, weights = sampling.matrix(n_in, n_out, outputs)
        found = np.zeros((len(weights), n_in))
        found[:, inputs] = weights
        np.testing.assert_allclose(found, whole[outputs], rtol=0, atol=1e-9)
        np.testing.assert_allclose(weights.sum(1), 1, rtol=0, atol=1e-12)
        reach = 8 * max(n_in / n_out, 1) + 2 * 16 + 5
        assert inputs.stop - inputs.start <= reach


class Sections:
    """Counts what is asked for."""

    def __init__(self, volume: Tensor) -> None:
        self.volume, self.asked = volume, list[int]()

    def __call__(self, i: int) -> Tensor:
        self.asked.append(i)
        return self.volume[i].clone()


@pytest.mark.parametrize("separated", [False, True])
@pytest.mark.parametrize("sampling", [CUBIC, Sampling(1), Sampling(1, like_torch=True)])
@pytest.mark.parametrize(("shape", "new_shape"), SHAPES)
def test_resampled_slab_by_slab(
    shape: tuple[int, ...], new_shape: tuple[int, ...], sampling: Sampling, separated: bool
) -> None:
    volume = noise(*shape)
    sections = Sections(volume)
    if sampling.like_torch:
        clip = None
        expected = resample_torch(volume[None], new_shape, 0 if separated else None)[0]
    else:
        clip = None if separated else (float(volume.min()), float(volume.max()))
        given = new_shape, sampling.order, separated, torch.float32, CPU
        expected = resample_spline(volume.__getitem__, shape, *given)
    slabs = resample_slabs(sections, shape, new_shape, sampling, separated, clip, CPU)
    torch.testing.assert_close(torch.cat(list(slabs)), expected, rtol=0, atol=3e-6)
    assert sections.asked == sorted(set(sections.asked))


def test_sections_are_asked_for_when_a_slab_needs_them() -> None:
    sections = Sections(noise(300, 4, 4))
    slabs = resample_slabs(sections, (300, 4, 4), (200, 4, 4), CUBIC, False, (-9, 9), CPU)
    planes = 0
    for slab in slabs:
        planes += len(slab)
        assert len(slab) <= 16
        assert len(sections.asked) <= planes * 1.5 + 20
    assert planes == 200
    assert sections.asked == list(range(300))


def test_sections_that_nearest_neighbour_steps_over_are_not_read() -> None:
    sections = Sections(noise(90, 4, 4))
    slabs = resample_slabs(sections, (90, 4, 4), (30, 4, 4), CUBIC, True, None, CPU)
    assert torch.equal(torch.cat(list(slabs)), sections.volume[1::3])
    assert len(sections.asked) < 90


@pytest.mark.parametrize("by", range(10))
def test_advance(by: int) -> None:
    planes = torch.arange(18).reshape(9, 2).clone()
    advance(planes, by)
    kept = max(9 - by, 0)
    assert torch.equal(planes[:kept], torch.arange(18).reshape(9, 2)[by : by + kept])
    assert torch.equal(planes[kept:], torch.arange(18).reshape(9, 2)[kept:])


def test_limits_are_those_of_the_normalised_values() -> None:
    voxels: NDArray[Any] = np.random.default_rng(0).integers(-400, 400, (9, 8, 7)).astype(np.int16)
    voxels[2:4, 2:5, 2:5] = 0
    crop = (slice(1, 8), slice(0, 8), slice(2, 7))
    for scheme in ("CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization"):
        for masked in (True, False):
            chosen = replace(CT, scheme=scheme, use_mask=masked)
            (normaliser,) = normalise([voxels], crop, [chosen], exact=False)
            values = normaliser(torch.from_numpy(voxels[crop]).float(), ...)
            assert limits(voxels[crop], normaliser) == (float(values.min()), float(values.max()))


@pytest.mark.parametrize("step_size", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize(
    "shape", [PATCH, (19, 9, 30), (3, 8, 20), (3, 1, 7), (40, 20, 8), (9, 6, 8)]
)
def test_the_window_slides_over_slabs(shape: tuple[int, ...], step_size: float) -> None:
    volume = noise(2, *shape)
    weight = noise(3, 2, 3, 3, 3, seed=1)

    def one(x: Tensor) -> Tensor:
        return torch.nn.functional.conv3d(x, weight, padding=1)

    def two(x: Tensor) -> Tensor:
        return one(x) * x.std() - x.mean()

    alone = [
        predict_logits(volume, n, PATCH, step_size, 3, torch.float32, ignore) for n in (one, two)
    ]
    expected = (alone[0] + alone[1]) / 2
    for planes in (1, 5, 50):
        found, told = slid(volume, [one, two], step_size, planes)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
        assert told == [(n + 1, len(told)) for n in range(len(told))]


def test_slabs_are_asked_for_when_a_row_needs_them() -> None:
    asked: list[int] = []

    def slabs() -> Iterator[Tensor]:
        for number in range(100):
            asked.append(number)
            yield torch.zeros((1, 1, 8, 8))

    planes = 0
    for logits in predict_slabs(slabs(), (100, 8, 8), [Tensor.clone], (10, 8, 8), 0.5, 1, ignore):
        assert len(asked) == planes + 10
        planes += logits.shape[1]
    assert planes == 100


@pytest.mark.parametrize("patch", [(8, 8, 8), (16, 32, 24), (5, 7, 6), (1, 4, 9), (96, 160, 160)])
def test_in_float32_the_clamp_of_the_weights_does_nothing(patch: tuple[int, ...]) -> None:
    weights = importance_map(patch, torch.float32)
    assert float(weights.min()) > 1e-10
    a, b, c = (n // 2 for n in patch)
    z, y, x = weights[:, b, c].double(), weights[a, :, c], weights[a, b, :]
    product = z[:, None, None] * y[:, None] * x / 100
    torch.testing.assert_close(weights.double(), product, rtol=1e-6, atol=0)


COARSE, FINE = (12, 14, 13), [(18, 21, 20), (9, 9, 9), (40, 14, 13), (12, 20, 13), (12, 14, 13)]


@pytest.mark.parametrize("rule", [LabelRule(None), LabelRule((2, 300)), DIFFERENCE_RULE])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (6.0, 1.0, 1.0), (1.0, 1.0, 6.0)])
@pytest.mark.parametrize("fine", FINE)
def test_labels_slab_by_slab(
    fine: tuple[int, int, int], spacing: tuple[float, float, float], rule: LabelRule
) -> None:
    logits = smooth_logits(2 if rule is DIFFERENCE_RULE else 3, COARSE).float()
    logits = logits if rule.regions is None else logits[1:] - logits[:1]
    config = replace(CONFIG, spacing=(1.5, 1.5, 1.5))
    for before, after in ((0, 0), (3, 2)):
        shape = tuple(n + before + after for n in fine)
        crop = tuple(slice(before, before + n) for n in fine)
        grid = Grid(shape, crop, spacing)
        expected = restored(logits, rule, config, grid, torch.uint16, exact=False)
        assert len(np.unique(expected)) > 1
        for planes in (1, 5, 50):
            slabs = iter(logits.split(planes, 1))
            parts = list(restore_slabs(slabs, COARSE, rule, config, grid, torch.uint16))
            assert np.array_equal(np.concatenate(parts), expected)
            assert all(part.dtype == np.uint16 for part in parts)


def test_labels_come_as_soon_as_they_can() -> None:
    """Three planes of one: of the newest plane's three, the last lies between it and the next."""
    config = replace(CONFIG, spacing=(1.5, 1.5, 1.5))
    crop = tuple(slice(0, n) for n in (30, 9, 9))
    grid = Grid((30, 9, 9), crop, (0.5, 1.5, 1.5))
    given = done = 0

    def slabs() -> Iterator[Tensor]:
        nonlocal given
        for plane in noise(1, 10, 9, 9).split(1, 1):
            given += 1
            yield plane

    for part in restore_slabs(slabs(), (10, 9, 9), DIFFERENCE_RULE, config, grid, torch.uint8):
        done += len(part)
        assert done >= 3 * given - 2
    assert (given, done) == (10, 30)
