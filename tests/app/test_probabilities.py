"""--probabilities: what is written beside the mask, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.image import read_image
from app.labels import label_rule
from app.model import LesionFilter, load_model
from app.predict import Options, Predictor
from app.probabilities import Part, decided, mean
from app.resample import linear_taps, mix_linear, nearest_taps, separated_axis
from tests.app.conftest import Run, mask, names
from tests.app.small_model import CONFIG, NETWORK, write_model
from tests.nnunet_models import smooth_noise, write_scan

SHAPE, SPACING = (21, 50, 46), (4.0, 1.2, 1.3)
THREE = {"labels": ("background", "a", "b"), "network": replace(NETWORK, heads=3)}
VARIANTS: dict[str, dict[str, Any]] = {
    "two classes": {},
    "three classes": THREE,
    "regions": {"labels": ("whole", "core"), "region_values": (1, 2)},
    "separate z": {"spacing": (13.0, 1.5, 1.5)},
    "transposed in plane": {"transpose": (0, 2, 1), **THREE},
    "transposed": {"transpose": (2, 0, 1), "spacing": (1.5, 3.0, 1.5)},
}


def with_border(voxels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Zeros around it, which are not looked at."""
    voxels[:3], voxels[-4:], voxels[:, :9], voxels[:, :, -7:] = 0, 0, 0, 0
    return voxels


def expected(predictor: Predictor, scan: Path) -> NDArray[Any]:
    """Every voxel of the crop interpolated from all logits, then softmax or sigmoid."""
    logits, prepared = predictor.logits_on_grid([read_image(scan)])
    config, grid = predictor.config, prepared.grid
    axis = separated_axis(config.spacing_on(grid.spacing), grid.spacing, None)
    taps = [
        (nearest_taps if i == axis else linear_taps)(n, m)
        for i, (n, m) in enumerate(zip(logits.shape[1:], grid.cropped_shape, strict=True))
    ]
    fine = mix_linear(logits, taps).double().numpy()
    if len(fine) < len(config.labels):  # lesion minus background
        fine = np.concatenate((-fine / 2, fine / 2))
    whole = np.zeros((len(config.labels), *grid.shape))
    if config.region_values is None:
        whole[0] = 1
        inside = np.exp(fine) / np.exp(fine).sum(0)
    else:
        inside = 1 / (1 + np.exp(-fine))
    whole[:, *grid.crop] = inside
    return whole.transpose(0, *(1 + np.argsort(config.transpose)))


@pytest.mark.parametrize("name", VARIANTS)
def test_probabilities_of_every_voxel(name: str, tmp_path: Path, run: Run) -> None:
    scan = write_scan(tmp_path / "X.nii.gz", with_border(smooth_noise(SHAPE, 0)), SPACING)
    model = write_model(tmp_path / "model", **VARIANTS[name])
    assert run(model, scan, tmp_path / "plain.nii.gz")[0] == 0
    code, _, errors = run(model, scan, tmp_path / "out" / "X.nii.gz", "--probabilities")
    assert (code, errors) == (0, [])
    assert names(tmp_path / "out") == ["X.nii.gz", "X.npz"]
    with np.load(tmp_path / "out" / "X.npz") as file:
        found = file["probabilities"]
    predictor = Predictor(load_model(model), Options(torch.device("cpu")))
    right = expected(predictor, scan)
    assert found.dtype == np.float16
    assert found.shape == (len(predictor.config.labels), *SHAPE)
    assert np.abs(found - right).max() < 2**-11  # half of float16's step below 1
    labels = mask(tmp_path / "out" / "X.nii.gz")
    clear = np.abs(right - 0.5).min(0) > 1e-5
    decided_on = label_rule(predictor.config).most_likely(right, torch.uint8)
    assert len(np.unique(labels)) > 1
    assert np.array_equal(labels[clear], decided_on[clear])
    assert np.count_nonzero(labels != mask(tmp_path / "plain.nii.gz")) <= 1


def test_a_lesion_filter_takes_its_lesions_from_both(tmp_path: Path, run: Run) -> None:
    scan = write_scan(tmp_path / "X.nii.gz", smooth_noise(SHAPE, 0), SPACING)
    model = write_model(tmp_path / "model", lesion_filter=LesionFilter(1e6, 0.0, ""))
    assert run(model, scan, tmp_path / "Y.nii.gz", "--probabilities")[0] == 0
    assert not mask(tmp_path / "Y.nii.gz").any()
    with np.load(tmp_path / "Y.npz") as file:
        assert (file["probabilities"][1] <= 0.5).all()


def test_nothing_is_left_where_the_scan_fails(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(made: Iterator[NDArray[Any]], *given: Any, **options: Any) -> Iterator[Part]:
        yield next(decided(made, *given, **options))
        raise ValueError("no more")

    scan = write_scan(tmp_path / "X.nii.gz", smooth_noise(SHAPE, 0), SPACING)
    model = write_model(tmp_path / "model")
    monkeypatch.setattr("app.predict.decided", fail)
    code, _, errors = run(model, scan, tmp_path / "out" / "X.nii.gz", "--probabilities")
    assert code == 1
    assert errors == [f"error: {scan}: no more"]
    assert names(tmp_path / "out") == []


def test_a_folder_that_cannot_take_them_is_said(tmp_path: Path, run: Run) -> None:
    scan = write_scan(tmp_path / "X.nii.gz", smooth_noise(SHAPE, 0), SPACING)
    (tmp_path / "out" / "X.npz").mkdir(parents=True)
    model = write_model(tmp_path / "model")
    code, _, (error,) = run(model, scan, tmp_path / "out" / "X.nii.gz", "--probabilities")
    assert code == 1
    assert error.startswith(f"error: {tmp_path / 'out' / 'X.npz'}: cannot be written (")


def parts(values: NDArray[np.float32], *cuts: int) -> Iterator[NDArray[np.float32]]:
    return iter(np.split(values, cuts, axis=1))


def test_models_are_averaged_plane_by_plane_however_they_cut() -> None:
    models = np.random.default_rng(0).random((3, 2, 9, 4, 5), np.float32)
    a, b, c = models
    found = list(mean([parts(a, 3, 6), parts(b, 2, 3, 8), parts(c)]))
    assert [part.shape[1] for part in found] == [2, 1, 3, 2, 1]
    assert np.array_equal(np.concatenate(found, 1), (a + b + c) / 3)


def test_labels_are_taken_from_probabilities_as_from_logits() -> None:
    even = np.array([[0.5, 0.4, 0.0], [0.5, 0.6, 0.0], [0.0, 0.0, 1.0]], np.float32)
    given = even.reshape(3, 1, 1, 3)
    classes, regions = (
        label_rule(replace(CONFIG, region_values=values)) for values in (None, (1, 2, 3))
    )
    (part,) = decided(iter([given]), classes, torch.uint8, keep=True)
    assert part.labels.tolist() == [[[0, 1, 2]]]
    assert part.probabilities is given
    (part,) = decided(iter([given]), regions, torch.uint16, keep=False)
    assert part.labels.tolist() == [[[0, 2, 3]]]
    assert part.labels.dtype == np.uint16
    assert part.probabilities is None
