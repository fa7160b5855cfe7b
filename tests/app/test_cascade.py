"""A cascade: its first stage's labels on the second one's grid, in whole and in slabs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.cascade import OneHot, one_hot, resampled
from app.model import MANIFEST, ModelError, PreviousStage, load_model
from app.preprocess import prepare, preprocess, preprocess_slabs
from tests.app.conftest import Run, mask, scan
from tests.app.small_model import CONFIG, NETWORK, write_model
from tests.app.test_ensembles import LARGEST, change
from tests.nnunet_models import smooth_noise

CPU = torch.device("cpu")
STAGE = PreviousStage("3d_lowres", (1, 3), None)
SECOND: dict[str, Any] = {
    "name": "second",
    "previous_stage": replace(STAGE, labels=(1,)),
    "network": replace(NETWORK, input_channels=2),
}


def line(*values: int) -> NDArray[np.int16]:
    return np.array(values, np.int16).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("given", "size", "expected"),
    [
        ((1, 2), 2, [1, 2]),
        ((1, 2), 4, [1, 1, 2, 2]),
        ((1, 2), 1, [2]),  # halfway: scipy's nearest is the later one
        ((2, 1), 1, [1]),
        ((0, 0, 1, 1), 2, [0, 1]),
        ((0, 2, 1, 0), 2, [2, 0]),
        ((0, 1, 0), 6, [0, 0, 1, 1, 0, 0]),
        ((-1, 1, -1), 1, [1]),
        ((0, 0, 0), 5, [0] * 5),
    ],
)
def test_a_vote_of_neighbours(given: tuple[int, ...], size: int, expected: list[int]) -> None:
    found = resampled(line(*given), (1, 1, size), None)
    assert np.maximum(found, 0).ravel().tolist() == expected


def test_the_nearest_of_a_tie_must_be_among_the_largest() -> None:
    """The centre of a cube: 1 and 2 have three eighths each, 3 a quarter; its nearest is a 3."""
    cube = np.array([3, 1, 1, 1, 2, 2, 2, 3], np.int16).reshape(2, 2, 2)
    assert resampled(cube, (1, 1, 1), None).item() == 1


def test_sections_are_taken_from_the_nearest_one() -> None:
    sections = np.stack([np.full((2, 2), value, np.int16) for value in (0, 3, 1)])
    found = resampled(sections, (6, 4, 4), 0)
    assert found[:, 0, 0].tolist() == [0, 0, 3, 3, 1, 1]


def test_zeros_around_the_scan_vote_apart() -> None:
    """Two voxels of lesion against two of background, or against one and one around the scan."""
    crop, labels = np.ones((1, 2, 2), np.int16), np.array([[[1, 1], [0, 0]]], np.uint8)
    box = (slice(0, 1), slice(0, 2), slice(0, 2))
    spacings = (1.0, 1.0, 1.0), (1.0, 2.0, 2.0)
    found = [one_hot(labels, STAGE, [crop], box, (1, 1, 1), spacings).labels.item()]
    crop[0, 1, 0] = 0
    found.append(one_hot(labels, STAGE, [crop], box, (1, 1, 1), spacings).labels.item())
    assert found == [0, 1]


def test_channels_are_one_hot() -> None:
    labels = np.array([0, 1, 3, 2], np.int16).reshape(4, 1, 1)
    first, second = OneHot(labels, (1, 3)).planes(slice(1, 4), CPU)
    assert (first.dtype, first.ravel().tolist()) == (torch.float32, [1, 0, 0])
    assert second.ravel().tolist() == [0, 1, 0]


@pytest.mark.parametrize("spacing", [(4.0, 1.2, 1.3), (1.2, 6.0, 1.3)])
def test_slabs_are_the_whole(spacing: tuple[float, float, float]) -> None:
    """Across another axis all is one slab."""
    voxels = smooth_noise((30, 40, 36), 0)
    before = prepare([voxels], spacing, CONFIG, exact=False, body=False)
    labels = np.random.default_rng(0).integers(0, 4, before.shape).astype(np.int16)
    with_labels = replace(before, more=OneHot(labels, (1, 3)).planes)
    whole = preprocess(with_labels, CONFIG, torch.float32, CPU)
    slabs = torch.cat(list(preprocess_slabs(with_labels, CONFIG, CPU)), 1)
    assert whole.shape == (3, *before.shape)
    assert torch.equal(slabs[1:], whole[1:])
    assert torch.allclose(slabs[0], whole[0], atol=1e-4)
    assert np.array_equal(whole[2].numpy(), labels == 3)


@pytest.fixture
def two_stages(tmp_path: Path) -> Path:
    folder = write_model(tmp_path / "second", **SECOND)
    write_model(folder / "3d_lowres", name="second/3d_lowres", configuration="3d_lowres", seed=3)
    return folder


def test_the_second_stage_sees_the_first(two_stages: Path, tmp_path: Path, run: Run) -> None:
    source = scan(tmp_path / "scans" / "X.nii.gz")
    code, out, errors = run(two_stages, source, tmp_path / "cascade.nii.gz")
    assert (code, errors) == (0, [])
    assert "3d_lowres and 3d_fullres, 2 member(s)" in out[0]
    write_model(tmp_path / "alone", seed=3)
    (two_stages / "3d_lowres" / "member_0.safetensors").unlink()
    code, _, (error,) = run(two_stages, source, tmp_path / "Y.nii.gz")
    assert (code, "3d_lowres/member_0.safetensors: is missing" in error) == (1, True)
    assert len(np.unique(mask(tmp_path / "cascade.nii.gz"))) == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"previous_stage": None}, "network.input_channels equals the channels, and the labels"),
        (
            {"previous_stage": {"folder": "..", "labels": [1], "force_separate_z": None}},
            "name folders, each once, in the model's own folder",
        ),
        (
            {"previous_stage": {"folder": "3d_lowres", "labels": [0], "force_separate_z": None}},
            "previous_stage.labels are different ones, without background",
        ),
        ({"channels": ["PET"]}, "has 3d_lowres with channels ('CT',), not ('PET',)"),
    ],
)
def test_refused(fields: dict[str, Any], expected: str, two_stages: Path) -> None:
    change(two_stages / MANIFEST, **fields)
    with pytest.raises(ModelError) as refused:
        load_model(two_stages)
    assert expected in str(refused.value)


def test_nothing_is_done_between_the_stages(two_stages: Path) -> None:
    change(two_stages / "3d_lowres" / MANIFEST, postprocessing=LARGEST)
    with pytest.raises(ModelError, match="has 3d_lowres with postprocessing"):
        load_model(two_stages)
