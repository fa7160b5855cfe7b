"""The stream against the whole scan at once: the same logits, the same masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app import loading
from app.image import Image, ImageError, read_image
from app.listener import SILENT, Listener
from app.model import Normalization, Resampling, load_model
from app.predict import Options, Predictor
from app.preprocess import prepare, preprocess, preprocess_slabs
from app.sliding_window import predict_logits, predict_slabs
from tests.app.at_work import ignore, image, predictor
from tests.app.conftest import NEEDS_BFLOAT16
from tests.app.small_model import CT, NETWORK, with_channels, write_model
from tests.nnunet_models import ROOT, smooth_noise, write_scan

CPU = torch.device("cpu")
Z_SCORE = Normalization("ZScoreNormalization", False)
MASKED = Normalization("ZScoreNormalization", True)
RESCALE = Normalization("RescaleTo01Normalization", False)
RGB = Normalization("RGBTo01Normalization", False)
ISO = {"spacing": (1.5, 1.5, 1.5)}


def with_border(voxels: NDArray[Any]) -> NDArray[Any]:
    voxels = voxels.copy()
    voxels[:3], voxels[-4:], voxels[:, :9], voxels[:, :, -7:] = 0, 0, 0, 0
    voxels[10:14, 20:26, 20:26] = 0
    return voxels


def torch_data(force: bool | None = None) -> dict[str, Any]:
    resampling = Resampling("torch", 1, force)
    return {"resample_data": resampling, "resample_logits": resampling}


def channels(*schemes: Normalization) -> dict[str, Any]:
    config = with_channels(len(schemes))
    return {"channels": config.channels, "network": config.network, "normalization": schemes}


@dataclass(frozen=True)
class Variant:
    """A model's config as changes to CONFIG, a scan and options."""

    changes: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, int, int] = (21, 50, 46)
    spacing: tuple[float, float, float] = (4.0, 1.2, 1.3)
    dtype: Any = np.int16
    change: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray
    members: int = 1
    tta: bool = False
    step_size: float = 0.5


VARIANTS = {
    "finer": Variant(ISO, spacing=(2.0, 1.2, 1.3), shape=(70, 40, 36)),
    "coarser": Variant({"spacing": (5.0, 2.5, 2.5)}, spacing=(2.0, 1.2, 1.3), shape=(90, 60, 56)),
    "long": Variant({"spacing": (1.1, 3.0, 3.0)}, spacing=(1.0, 1.5, 1.5), shape=(200, 40, 36)),
    "spacing kept": Variant({"spacing": (4.0, 1.2, 1.3)}),
    "in-plane spacing kept": Variant({"spacing": (3.0, 1.2, 1.3)}, spacing=(2.5, 1.2, 1.3)),
    "z spacing kept": Variant({"spacing": (4.0, 1.5, 1.5)}),
    "separate z": Variant({"spacing": (5.0, 1.0, 1.0)}, spacing=(5.5, 1.2, 1.3)),
    "separate z of the model alone": Variant({"spacing": (6.0, 1.5, 1.5)}, spacing=(2.0, 1.2, 1.3)),
    "separate z, in-plane spacing kept": Variant(
        {"spacing": (5.0, 1.2, 1.3)}, spacing=(8, 1.2, 1.3)
    ),
    "separate z forbidden": Variant(
        {"spacing": (6.0, 1.5, 1.5), "resample_data": Resampling("default", 3, False)}
    ),
    "linear data": Variant({**ISO, "resample_data": Resampling("default", 1, None)}),
    "torch resampling": Variant({**ISO, **torch_data()}, spacing=(2.0, 1.2, 1.3)),
    "torch, separate z": Variant({"spacing": (5.0, 1.0, 1.0), **torch_data()}),
    "transposed": Variant({"transpose": (2, 0, 1), "spacing": (1.5, 3.0, 1.5)}),
    "transposed in plane": Variant({"transpose": (0, 2, 1)}, change=with_border),
    "sections across y": Variant(ISO, shape=(50, 21, 46), spacing=(1.2, 6.0, 1.3)),
    "zero border": Variant(change=with_border),
    "all zero": Variant(change=np.zeros_like),
    "z-score": Variant({"normalization": (Z_SCORE,)}, change=with_border),
    "masked z-score": Variant({"normalization": (MASKED,)}, change=with_border),
    "masked z-score, cubic z": Variant(
        {"normalization": (MASKED,), **ISO}, spacing=(2.0, 1.2, 1.3), change=with_border
    ),
    "two folds": Variant(members=2),
    "mirrored": Variant(tta=True),
    "larger steps": Variant(step_size=0.8),
    "smaller than a patch": Variant({"patch_size": (24, 64, 64)}, shape=(9, 33, 40)),
    "thinner than a patch": Variant({"patch_size": (40, 16, 16)}),
    "one slice": Variant(shape=(1, 50, 46)),
    "three classes": Variant(
        {"labels": ("background", "a", "b"), "network": replace(NETWORK, heads=3)}
    ),
    "regions": Variant({"labels": ("whole", "core"), "region_values": (1, 2)}),
    "a label beyond a byte": Variant({"labels": ("whole", "core"), "region_values": (1, 300)}),
    "two channels": Variant(channels(RESCALE, CT)),
    "float32": Variant(dtype=np.float32),
    "uint16": Variant(dtype=np.uint16, change=np.abs),
    "rgb": Variant({"normalization": (RGB,)}, dtype=np.uint8, change=lambda v: v.clip(0, 255)),
}


@dataclass(frozen=True)
class Case:
    predictor: Predictor
    scan: list[Image]
    folder: Path


@pytest.fixture(params=VARIANTS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    variant = VARIANTS[request.param]
    model = load_model(write_model(tmp_path / "model", members=variant.members, **variant.changes))
    scan = []
    for channel in range(len(model.config.channels)):
        voxels = variant.change(smooth_noise(variant.shape, seed=channel))
        file = tmp_path / f"scan_{channel}.nii.gz"
        scan.append(read_image(write_scan(file, voxels, variant.spacing, variant.dtype)))
    options = Options(CPU, False, variant.step_size, variant.tta)
    return Case(Predictor(model, options), scan, tmp_path)


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: False)


def test_no_voxel_differs(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    target = case.folder / "mask.nii.gz"
    case.predictor.write(case.scan, target, SILENT, None)
    monkeypatch.setattr("app.preprocess.has_slabs", lambda _: False)
    expected = case.predictor.segment(case.scan)
    mask = read_image(target).voxels
    assert mask.dtype == expected.dtype
    assert np.count_nonzero(mask != expected) == 0
    assert not case.scan[0].voxels.any() or len(np.unique(expected)) > 1


def test_the_logits_agree_in_float32(case: Case) -> None:
    p, voxels, spacing = case.predictor, [c.voxels for c in case.scan], case.scan[0].spacing_zyx
    scan = prepare(voxels, spacing, p.config, exact=False, body=False)
    if scan.axis not in (None, 0):
        return
    with torch.inference_mode():
        data = preprocess(scan, p.config, torch.float32, CPU)
        streamed = torch.cat(list(preprocess_slabs(scan, p.config, CPU)), 1)
        torch.testing.assert_close(streamed, data, rtol=0, atol=3e-6 * float(data.abs().max()))
        networks = p.on_device.passes(print, print)
        geometry = (p.config.patch_size, p.options.step_size, p.stages[0].heads)
        slabs = predict_slabs(iter([streamed]), scan.shape, networks, *geometry, ignore)
        logits = torch.cat([s.clone() for s in slabs], 1)
        alone = [predict_logits(data, n, *geometry, torch.float32, ignore) for n in networks]
        expected = sum(alone[1:], alone[0]) / len(alone)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("at", [1, 20])
def test_a_failure_half_way_leaves_the_old_mask(at: int, tmp_path: Path) -> None:
    scan = image(tmp_path, (60, 50, 46), (3.0, 1.2, 1.3))
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "mask.nii.gz"
    target.write_bytes(b"old")

    def stop(done: int, of: int) -> None:
        assert of > 2 * at
        if done == at:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        predictor(tmp_path, Options(CPU)).write([scan], target, Listener(stop, print, print), None)
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_a_mask_that_cannot_be_written_stops_the_network(tmp_path: Path) -> None:
    scan = image(tmp_path, (200, 50, 46), (3.0, 1.2, 1.3))
    seen: list[int] = []
    listener = Listener(lambda done, of: seen.append(of - done), print, print)
    (tmp_path / "file").touch()
    mask = tmp_path / "file" / "mask.nii.gz"  # which is no folder
    with pytest.raises(ImageError, match=r"mask.nii.gz: cannot be written \(File exists"):
        predictor(tmp_path, Options(CPU)).write([scan], mask, listener, None)
    assert not seen or seen[-1] > 0


def test_the_same_mask_every_time(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "model"))
    scan = image(tmp_path, (60, 50, 46), (2.0, 1.2, 1.3))
    files = [tmp_path / f"{n}.nii.gz" for n in range(3)]
    for file in files:
        Predictor(model, Options(CPU)).write([scan], file, SILENT, None)
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("bfloat16", [False, pytest.param(True, marks=NEEDS_BFLOAT16)])
@pytest.mark.parametrize(
    "scan", ["sts/imagesTr/STS_001_0000", "ct/CRLM-CT-1004_ct", "ct/GETilt-head_ct"]
)
def test_whole_real_scans(
    scan: str, bfloat16: bool, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped model. In bfloat16 the last bit of an input can flip one of eight, and that a
    voxel whose logit is nearly zero.
    """
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: bfloat16)
    images = [read_image(real_data / f"{scan}.nii.gz")]
    shipped = Predictor(load_model(ROOT / "weights" / "cpu-small"), Options(CPU))
    found = shipped.segment(images)
    monkeypatch.setattr("app.preprocess.has_slabs", lambda _: False)
    expected = shipped.segment(images)
    differ = np.count_nonzero(found != expected)
    assert differ <= (1e-4 * expected.size if bfloat16 else 0)
    assert expected.any()
