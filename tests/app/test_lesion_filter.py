"""app.lesion_filter: small and unlikely lesions go, at once or in a stream; all else stays."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from app import __main__ as command
from app.image import read_image
from app.lesion_filter import find, remove, remove_slabs, voxel_ml
from app.model import LesionFilter, ModelError, load_model, save_manifest
from app.predict import Options, Predictor
from app.preprocess import Grid
from evaluation import volumes
from tests.app.conftest import python
from tests.app.small_model import CONFIG, NETWORK, write_model
from tests.app.test_cli_options import IMPORTED, IMPORTS, TRIED_BY_TORCH
from tests.nnunet_models import smooth_noise, write_scan

CPU = torch.device("cpu")
RULE = LesionFilter(min_volume_ml=0.5, min_probability=0.9, evidence="made up")
LIKELY = math.log(0.95 / 0.05)  # the logit of 95 %
UNLIKELY = math.log(0.85 / 0.15)
Logits = NDArray[np.float32]


def background(shape: Sequence[int] = (12, 10, 9)) -> Logits:
    return np.full(shape, -3.0, np.float32)


def test_small_and_unlikely_lesions_become_background() -> None:
    logits = background()
    logits[1:3, 1:3, 1:3] = 0.1
    logits[2, 2, 2] = LIKELY  # eight voxels, one of them likely
    logits[6:9, 1:3, 1:3] = UNLIKELY
    logits[6, 7, 7] = LIKELY  # one voxel
    kept = logits.copy()
    remove(kept, RULE, voxel_ml=0.07)
    assert np.count_nonzero(kept > 0) == 8
    np.testing.assert_array_equal(kept[:4], logits[:4])
    np.testing.assert_array_equal(np.abs(kept), np.abs(logits))


def test_the_bounds_themselves_are_kept() -> None:
    logits = background()
    logits[1:3, 1, 1] = 4.0
    (probability,) = find(logits, 1.0).probability
    assert probability == pytest.approx(1 / (1 + math.exp(-4.0)))
    two = LesionFilter(0.5, probability, "")
    for volume, left in ((0.25, 2), (0.2499, 0)):
        kept = logits.copy()
        remove(kept, two, volume)
        assert np.count_nonzero(kept > 0) == left
    remove(logits, replace(two, min_probability=two.min_probability + 1e-9), 1.0)
    assert not (logits > 0).any()


def test_voxels_that_share_a_corner_are_one_lesion() -> None:
    logits = background()
    logits[1, 1, 1], logits[2, 2, 2] = 0.1, LIKELY
    remove(logits, RULE, voxel_ml=0.25)
    assert np.count_nonzero(logits > 0) == 2


def random_logits(seed: int, density: float) -> Logits:
    """A share ``density`` is lesion, of 4 at most, in components of one voxel to hundreds."""
    noise = smooth_noise((40, 16, 15), seed).astype(np.float32)
    noise -= np.quantile(noise, 1 - density)
    noise *= 4 / noise.max()
    noise[16:20], noise[30:38] = -1.0, -1.0  # planes that end every lesion
    return noise


@pytest.mark.parametrize("density", [0.02, 0.1, 0.3])
def test_components_are_those_of_scipy(density: float) -> None:
    logits = random_logits(1, density)
    found = find(list(logits), voxel_ml=0.25)
    labels, count = ndimage.label(logits > 0, np.ones((3, 3, 3)))
    assert len(found.volume_ml) == len(found.probability) == count > 1
    for label in range(1, count + 1):
        inside = labels == label
        (mine,) = np.unique(found.labels[inside])
        assert inside.sum() == (found.labels == mine).sum()
        assert found.volume_ml[mine - 1] == inside.sum() / 4
        highest = float(logits[inside].max())
        assert found.probability[mine - 1] == pytest.approx(1 / (1 + math.exp(-highest)))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3, 1), (3, 1, 1)])
def test_two_voxels_with_one_between_them_are_two_lesions(shape: tuple[int, ...]) -> None:
    logits = np.array([1, -1, 1], np.float32).reshape(shape)
    assert find(list(logits), voxel_ml=0.5).volume_ml.tolist() == [0.5, 0.5]


def in_slabs(logits: Logits, depth: int) -> Iterator[Tensor]:
    """Each slab is overwritten when the next one is asked for, as in the sliding window."""
    for part in torch.from_numpy(logits)[None].split(depth, 1):
        slab = part.clone()
        yield slab
        slab.fill_(math.nan)


@pytest.mark.parametrize("depth", [1, 3, 7, 40])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.3])
def test_a_stream_gives_the_same(depth: int, density: float) -> None:
    for seed in range(4):
        logits = random_logits(seed, density) if density else background((40, 16, 15))
        expected = logits.copy()
        remove(expected, RULE, 0.05)
        slabs = remove_slabs(in_slabs(logits, depth), RULE, 0.05, CPU)
        found = torch.cat([s.clone() for s in slabs], 1)
        np.testing.assert_array_equal(found[0].numpy(), expected)
        assert not density or 0 < (expected > 0).sum() < (logits > 0).sum()


def test_what_is_not_held_is_handed_on_at_once() -> None:
    logits = random_logits(0, 0.1)
    assert (logits[:4] > 0).any()
    asked: list[int] = []

    def slabs() -> Iterator[Tensor]:
        for number, slab in enumerate(in_slabs(logits, 5)):
            asked.append(number)
            yield slab

    out = remove_slabs(slabs(), RULE, 0.05, CPU)
    first = next(out)
    assert first.shape[1] <= 4
    assert asked == [0, 1, 2, 3]  # planes 16 to 19 are in the last of these
    assert sum(s.shape[1] for s in out) + first.shape[1] == 40


def test_the_volume_of_a_voxel_is_that_of_the_resampled_grid() -> None:
    grid = Grid((50, 70, 60), (slice(10, 50), slice(0, 70), slice(5, 55)), (2.5, 0.8, 0.9))
    volume = voxel_ml(grid, (33, 28, 22))
    assert volume == pytest.approx(40 * 2.5 / 33 * 70 * 0.8 / 28 * 50 * 0.9 / 22 / 1000)


SPACING = (3.0, 1.5, 1.5)  # the model's own: a mask's voxels are those of the network's grid
VOXEL_ML = math.prod(SPACING) / 1000
Segment = Callable[..., NDArray[Any]]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_scan(tmp_path / "X.nii.gz", smooth_noise((24, 60, 56), 3), SPACING)


@pytest.fixture
def segment(scan: Path, tmp_path: Path) -> Segment:
    """Segment one scan with a model that has this filter."""

    def run(rule: LesionFilter | None, *options: str) -> NDArray[Any]:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        write_model(folder, lesion_filter=rule)
        output = folder / "mask.nii.gz"
        arguments = ["--input", scan, "--output", output, "--model", folder, "--device", "cpu"]
        assert command.main([str(a) for a in (*arguments, *options)]) == 0
        return volumes.read(output).voxels_zyx

    return run


@pytest.mark.parametrize("stream", [True, False])
def test_a_mask_has_no_lesion_that_the_filter_takes_out(
    stream: bool, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stream:
        monkeypatch.setattr("app.preprocess.has_slabs", lambda _: False)
    without = segment(None)
    labels, _ = ndimage.label(without, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    bound = 2.5 * VOXEL_ML
    expected = (sizes[labels] > 2.5) & (labels > 0)
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(without)
    np.testing.assert_array_equal(segment(LesionFilter(bound, 0.0, "")), expected)
    assert not segment(LesionFilter(1e6, 0.0, "none is as large")).any()
    assert not segment(LesionFilter(0.0, 1 - 1e-9, "none is as likely")).any()


def test_the_logits_on_the_grid_are_those_the_filter_sees(segment: Segment, scan: Path) -> None:
    model = write_model(scan.parent / "model")
    logits, prepared = Predictor(load_model(model), Options(CPU)).logits_on_grid([read_image(scan)])
    assert voxel_ml(prepared.grid, prepared.shape) == pytest.approx(VOXEL_ML)
    np.testing.assert_array_equal(logits[0] > 0, segment(None))
    remove(logits[0].numpy(), LesionFilter(0.0, 0.6, ""), VOXEL_ML)
    expected = segment(LesionFilter(0.0, 0.6, ""))
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(segment(None))
    np.testing.assert_array_equal(logits[0] > 0, expected)


def test_exact_leaves_the_filter_out(segment: Segment, capsys: pytest.CaptureFixture[str]) -> None:
    expected = segment(None, "--exact")
    capsys.readouterr()
    found = segment(LesionFilter(1e6, 0.0, "none is as large"), "--exact")
    assert expected.any()
    np.testing.assert_array_equal(found, expected)
    assert "without the model's lesion filter" in capsys.readouterr().err


def test_it_is_said_and_its_library_imported(scan: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", lesion_filter=RULE)
    arguments = ["--model", model, "--device", "cpu", "--input", scan, "--output", tmp_path / "o"]
    done = python("-c", IMPORTS, *arguments)
    said, *_, modules = done.stdout.splitlines()
    assert said == "model tiny: no lesions below 0.5 ml or a probability of 0.9"
    code, imported = json.loads(modules)
    assert code == 0
    others = {name for name in imported if "cython" not in name}  # what cc3d is compiled with
    assert others - TRIED_BY_TORCH == IMPORTED | {"cc3d"}


MORE = {"network": replace(NETWORK, heads=3), "labels": ("background", "a", "b")}


@pytest.mark.parametrize(
    ("rule", "changes", "expected"),
    [
        (LesionFilter(-1.0, 0.5, ""), {}, "min_volume_ml is 0 or more"),
        (
            LesionFilter(math.inf, 0.5, ""),
            {},
            "should be a finite number, found inf",
        ),
        (LesionFilter(0.0, 1.0, ""), {}, "min_probability is 0 or more, below 1"),
        (RULE, MORE, "lesion_filter is for two classes"),
    ],
)
def test_a_filter_that_makes_no_sense_is_not_written(
    rule: LesionFilter, changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=expected):
        save_manifest(tmp_path, replace(CONFIG, lesion_filter=rule, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_filter_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert load_model(write_model(tmp_path / "m", lesion_filter=RULE)).config.lesion_filter == RULE
