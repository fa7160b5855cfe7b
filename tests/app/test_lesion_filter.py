"""app.lesion_filter: small and unlikely lesions go, at once or in a stream; all else stays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from app import __main__ as command
from app.lesion_filter import find, remove, remove_slabs, voxel_ml
from app.model import LesionFilter, ModelError, load_model, save_manifest
from app.preprocess import Grid
from evaluation import volumes
from tests.app.small_model import CONFIG, write_model
from tests.nnunet_models import smooth_noise, write_scan

RULE = LesionFilter(min_volume_ml=0.5, min_probability=0.9, evidence="made up")
LIKELY = math.log(0.95 / 0.05)  # the logit of 95 %
UNLIKELY = math.log(0.85 / 0.15)


def background(shape: Sequence[int] = (12, 10, 9)) -> Tensor:
    return torch.full((1, *shape), -3.0)


def test_small_and_unlikely_lesions_become_background() -> None:
    logits = background()
    logits[0, 1:3, 1:3, 1:3] = 0.1
    logits[0, 2, 2, 2] = LIKELY  # eight voxels, one of them likely
    logits[0, 6:9, 1:3, 1:3] = UNLIKELY
    logits[0, 6, 7, 7] = LIKELY  # one voxel
    kept = logits.clone()
    remove(kept, RULE, voxel_ml=0.07)
    assert (kept > 0).sum() == 8
    assert torch.equal(kept[:, :4], logits[:, :4])
    assert torch.equal(kept.abs(), logits.abs())


def test_the_bounds_themselves_are_kept() -> None:
    logits = background()
    logits[0, 1:3, 1, 1] = 4.0
    two = LesionFilter(0.5, float(torch.sigmoid(torch.tensor(4.0))), "")
    for volume, left in ((0.25, 2), (0.2499, 0)):
        kept = logits.clone()
        remove(kept, two, volume)
        assert (kept > 0).sum() == left
    remove(logits, replace(two, min_probability=two.min_probability + 1e-4), 1.0)
    assert not (logits > 0).any()


def test_voxels_that_share_a_corner_are_one_lesion() -> None:
    logits = background()
    logits[0, 1, 1, 1], logits[0, 2, 2, 2] = 0.1, LIKELY
    remove(logits, RULE, voxel_ml=0.25)
    assert (logits > 0).sum() == 2


def random_logits(seed: int, density: float) -> Tensor:
    noise = torch.from_numpy(smooth_noise((40, 16, 15), seed)).float()
    noise -= noise.flatten().quantile(1 - density)
    noise *= 4 / noise.abs().max()
    noise[17], noise[30:33] = -1.0, -1.0  # planes that end every lesion
    return noise[None]


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_components_are_those_of_scipy(density: float) -> None:
    logits = random_logits(1, density)
    found = find(logits)
    labels, count = ndimage.label(logits[0].numpy() > 0, np.ones((3, 3, 3)))
    assert len(found.voxels) == len(found.peak) == count + 1
    for label in range(1, count + 1):
        inside = labels == label
        (mine,) = np.unique(found.labels[inside])
        assert found.voxels[mine] == inside.sum() == (found.labels == mine).sum()
        assert found.peak[mine] == logits[0].numpy()[inside].max()


def in_slabs(logits: Tensor, depth: int) -> Iterator[Tensor]:
    """Each slab is overwritten when the next one is asked for, as in the sliding window."""
    for part in logits.split(depth, 1):
        slab = part.clone()
        yield slab
        slab.fill_(math.nan)


@pytest.mark.parametrize("depth", [1, 3, 7, 40])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.3])
def test_a_stream_gives_the_same(depth: int, density: float) -> None:
    for seed in range(4):
        logits = random_logits(seed, density) if density else background((40, 16, 15))
        expected = logits.clone()
        remove(expected, RULE, 0.05)
        slabs = remove_slabs(in_slabs(logits, depth), RULE, 0.05, planes=4)
        found = torch.cat([s.clone() for s in slabs], 1)
        assert torch.equal(found, expected)
    if density == 0.1:
        assert 0 < (expected > 0).sum() < (logits > 0).sum()


def test_what_is_not_held_is_handed_on_at_once() -> None:
    logits = random_logits(0, 0.1)
    asked: list[int] = []

    def slabs() -> Iterator[Tensor]:
        for number, slab in enumerate(in_slabs(logits, 5)):
            asked.append(number)
            yield slab

    out = remove_slabs(slabs(), RULE, 0.05, planes=4)
    first = next(out)
    assert first.shape[1] <= 4
    assert len(asked) <= 4  # plane 17 is in the fourth slab
    assert sum(s.shape[1] for s in out) + first.shape[1] == 40


def test_the_volume_of_a_voxel_is_that_of_the_resampled_grid() -> None:
    grid = Grid((50, 70, 60), (slice(10, 50), slice(0, 70), slice(5, 55)), (2.5, 0.8, 0.9))
    volume = voxel_ml(grid, (33, 28, 22))
    assert volume == pytest.approx(40 * 2.5 / 33 * 70 * 0.8 / 28 * 50 * 0.9 / 22 / 1000)


Segment = Callable[..., np.ndarray]


@pytest.fixture
def segment(tmp_path: Path) -> Segment:
    """Segment one scan with a model that has this filter and spacing."""
    scan = write_scan(tmp_path / "X.nii.gz", smooth_noise((24, 60, 56), 3), (3.0, 1.5, 1.5))

    def run(rule: LesionFilter | None, *options: str) -> np.ndarray:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        write_model(folder, lesion_filter=rule)
        output = folder / "mask.nii.gz"
        arguments = ["--input", scan, "--output", output, "--model", folder, "--device", "cpu"]
        assert command.main([str(a) for a in (*arguments, *options)]) == 0
        return volumes.read(output).voxels_zyx

    return run


def test_a_mask_has_no_lesion_that_the_filter_takes_out(segment: Segment) -> None:
    without = segment(None)
    labels, count = ndimage.label(without, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    assert count > 1
    bound = float(np.median(sizes)) * 3.0 * 1.5 * 1.5 / 1000
    kept = segment(LesionFilter(bound, 0.0, "the smaller half"))
    assert 0 < kept.sum() < without.sum()
    assert not (kept & ~without.astype(bool)).any()
    none = segment(LesionFilter(1e6, 0.0, "none is as large"))
    assert not none.any()
    unlikely = segment(LesionFilter(0.0, 1 - 1e-9, "none is as likely"))
    assert not unlikely.any()


def test_exact_leaves_the_filter_out(segment: Segment, capsys: pytest.CaptureFixture[str]) -> None:
    expected = segment(None, "--exact")
    capsys.readouterr()
    found = segment(LesionFilter(1e6, 0.0, "none is as large"), "--exact")
    assert expected.any()
    np.testing.assert_array_equal(found, expected)
    assert "its lesion filter is left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (LesionFilter(-1.0, 0.5, ""), "min_volume_ml is 0 or more"),
        (LesionFilter(math.inf, 0.5, ""), "min_volume_ml is 0 or more"),
        (LesionFilter(0.0, 1.0, ""), "min_probability is 0 or more, below 1"),
    ],
)
def test_a_filter_that_makes_no_sense_is_not_written(
    rule: LesionFilter, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=expected):
        save_manifest(tmp_path, replace(CONFIG, lesion_filter=rule))


def test_a_filter_is_for_two_classes(tmp_path: Path) -> None:
    network = replace(CONFIG.network, heads=3)
    config = replace(CONFIG, lesion_filter=RULE, network=network, labels=("background", "a", "b"))
    with pytest.raises(ModelError, match="lesion_filter is for two classes"):
        save_manifest(tmp_path, config)
    assert load_model(write_model(tmp_path / "m", lesion_filter=RULE)).config.lesion_filter == RULE
