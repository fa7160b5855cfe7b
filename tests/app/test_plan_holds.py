"""The memory plan against the bytes that are alive while scans go through the same code.

On the CPU, where every tensor but labels counts, be it one that would be on the host.
The network runs on the meta device; its logits say lesion everywhere, the most that restoring can
be asked to do. (With a lesion filter some planes have none, else it would hand nothing on.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from app import configuration, predict
from app.cascade import OneHot
from app.image import Image, read_image
from app.listener import Listener
from app.loading import set_precision
from app.memory.live_bytes import LiveBytes
from app.model import (
    LesionFilter,
    Model,
    ModelConfig,
    Normalization,
    PreviousStage,
    Resampling,
)
from app.networks import build_network
from app.predict import Options, Predictor
from app.sliding_window import window_count
from tests.app.published import PUBLISHED
from tests.app.small_model import NETWORK, with_channels
from tests.nnunet_models import write_scan

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SLICES = (55, 100, 150, 215, 334, 448, 499, 554, 1500)  # the papers' cases and a whole body


class OnDevice(LiveBytes):
    """Labels are made on the host."""

    def _add(self, tensor: Tensor) -> None:
        if tensor.dtype not in (torch.uint8, torch.uint16):
            super()._add(tensor)


class Enough(Exception):
    """From the third row of windows on nothing new happens."""


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """One section of 512 x 512, which is repeated as often as a test wants."""
    section = np.random.default_rng(0).integers(-200, 300, (1, 512, 512))
    return read_image(write_scan(tmp_path / "X.mha", section, (2.0, 0.75, 0.75)))


class Called(nn.Module):
    """A function in the place of a network."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


@pytest.fixture(autouse=True)
def _meta_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "compute_dtype", lambda *_: torch.float16)

    def load(
        model: Model, member: object, device: object, exact: object, one_channel: bool
    ) -> nn.Module:
        heads = 1 if one_channel else model.config.network.heads
        network = build_network(replace(model.config.network, heads=heads))
        set_precision(network, torch.float16)
        runs = 0
        shape = model.config.network.input_channels, *model.config.patch_size
        inputs = {n: torch.empty((n, *shape), device="meta") for n in (1, 2, 4, 8, 16)}

        def run(x: Tensor) -> Tensor:
            nonlocal runs
            runs += 1
            if runs < 3 and len(x) in inputs:  # the same bytes every time
                network(inputs[len(x)])
            logits = torch.ones((len(x), heads, *x.shape[2:]), dtype=torch.float16)
            if model.config.lesion_filter is not None:
                logits[:, :, : x.shape[2] // 2] = -1
            return logits

        return Called(run)

    def written(file: Path, planes: Iterator[Any], *_: object) -> None:
        for _plane in planes:
            pass

    monkeypatch.setattr(configuration, "load_network", load)
    monkeypatch.setattr(predict, "write_planes", written)


def peak_and_plan(
    config: ModelConfig | Model, scan: list[Image], folder: Path, rows: int = 9, **options: Any
) -> tuple[int, int]:
    """Live bytes with cuDNN's workspace during some rows of windows, and what the plan foresees."""
    model = config if isinstance(config, Model) else Model(folder, config)
    predictor, config = Predictor(model, Options(CPU, step_size=1.0, **options)), model.config
    plan = predictor.plan(scan)
    assert plan.needs is not None
    assert plan.buffers is not None
    assert not plan.on_host
    beside = plan.buffers.beside_network(plan.sections) + plan.windows * plan.needs.window
    foreseen = max(beside, plan.buffers.without_network(plan.sections))
    target = config.spacing_on(scan[0].spacing_zyx)
    spacing = zip(scan[0].voxels.shape, scan[0].spacing_zyx, target, strict=True)
    _, *plane = (round(n * s / t) for n, s, t in spacing)
    row = window_count((1, *plane), config.patch_size, 1.0) * len(config.members)

    def stop(done: int, of: int) -> None:
        if done > rows * row:
            raise Enough

    with OnDevice() as count, contextlib.suppress(Enough):
        predictor.write(scan, folder / "mask.mha", Listener(stop, print, print), None)
    return count.peak_with_workspace, foreseen


def long(image: Image, slices: int) -> Image:
    """The same section again and again, without the memory."""
    shape, strides = image.voxels.shape[1:], image.voxels.strides[1:]
    voxels = np.lib.stride_tricks.as_strided(image.voxels, (slices, *shape), (0, *strides))
    return replace(image, voxels=voxels)


@pytest.mark.parametrize("slices", SLICES)
@pytest.mark.parametrize("config", PUBLISHED.values(), ids=PUBLISHED)
def test_published_networks_on_all_sizes(
    config: ModelConfig, slices: int, image: Image, tmp_path: Path
) -> None:
    peak, foreseen = peak_and_plan(
        config, [long(image, slices)], tmp_path, rows=2, vram_budget_mib=4096
    )
    assert 0.9 * foreseen < peak <= foreseen


def small(channels: int = 1, **changes: Any) -> ModelConfig:
    settings: dict[str, Any] = {"spacing": (4.0, 1.5, 1.5), "patch_size": (16, 32, 32)}
    return replace(with_channels(channels), **(settings | changes))


SMALL = small()
PAIR = SMALL.members * 2
FOURTEEN: dict[str, Any] = {"labels": ("organ",) * 14, "network": replace(NETWORK, heads=14)}
MASKED = (Normalization("ZScoreNormalization", True),)
FLAT = replace(NETWORK, kernel_sizes=((1, 3, 3),) * 2, strides=((1, 1, 1), (1, 2, 2)), dimensions=2)
SECTIONS = small(network=FLAT, spacing=(None, 1.5, 1.5), patch_size=(1, 64, 64))
VARIANTS: dict[str, ModelConfig] = {
    "two classes": SMALL,
    "two dimensions": SECTIONS,
    "lesion filter": small(lesion_filter=LesionFilter(0.1, 0.5, "")),
    "many classes": small(**FOURTEEN),
    "regions": small(labels=("a", "b"), region_values=(1, 2)),
    "two channels": small(2),
    "finer than the scan": small(spacing=(1.0, 0.6, 0.6)),
    "sections of the scan are much thinner": small(spacing=(12.0, 4.0, 4.0)),
    "separate z": small(spacing=(6.0, 1.0, 1.0)),
    "mirrored": SMALL,
    "two members": small(members=PAIR),
    "a patch wider than the scan": small(spacing=(4.0, 9.0, 9.0), patch_size=(16, 64, 64)),
    "masked z-score": small(normalization=MASKED),
    "probabilities": SMALL,
    "probabilities of many classes": small(**FOURTEEN),
    "exact": SMALL,
    "exact, two members": small(members=PAIR),
    "exact, like torch": small(resample_data=Resampling("torch", 1, None)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_other_models(name: str, image: Image, tmp_path: Path) -> None:
    config = VARIANTS[name]
    options = {
        "exact": name.startswith("exact"),
        "tta": name == "mirrored",
        "probabilities": name.startswith("probabilities"),
    }
    scan = [long(image, 60)] * len(config.channels)
    rows = 99 if config.network.dimensions == 2 else 9  # of windows that are one section deep
    peak, foreseen = peak_and_plan(config, scan, tmp_path, rows, vram_budget_mib=100_000, **options)
    assert 0.4 * foreseen < peak <= foreseen


LOW = small(spacing=(6.0, 3.0, 3.0), patch_size=(16, 16, 16))
TOGETHER = {
    "two resolutions": (SMALL, LOW),
    "the second is larger": (LOW, SMALL),
    "three": (SMALL, LOW, small(members=PAIR)),
    "many classes": (small(**FOURTEEN), replace(LOW, **FOURTEEN)),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_configurations_together(name: str, image: Image, tmp_path: Path) -> None:
    first, *others = TOGETHER[name]
    model = Model(tmp_path, first, tuple(Model(tmp_path, other) for other in others))
    scan = [long(image, 60)]
    peak, foreseen = peak_and_plan(model, scan, tmp_path, rows=99, vram_budget_mib=100_000)
    assert 0.3 * foreseen < peak <= foreseen


def test_a_cascade(image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels between the stages are resampled on the host."""

    def one_hot(labels: object, stage: PreviousStage, *given: Any) -> OneHot:
        _, _, shape, _ = given
        return OneHot(np.zeros(shape, np.int16), stage.labels)

    monkeypatch.setattr(predict, "one_hot", one_hot)
    network = replace(NETWORK, input_channels=4)
    stage = PreviousStage("3d_lowres", (1, 2, 3), None)
    second = small(network=network, previous_stage=stage)
    model = Model(tmp_path, second, previous=Model(tmp_path, LOW))
    scan = [long(image, 60)]
    peak, foreseen = peak_and_plan(model, scan, tmp_path, rows=99, vram_budget_mib=100_000)
    assert 0.4 * foreseen < peak <= foreseen


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, spacing=(4.0, 1.0, 1.0))])
def test_sections_across_another_axis(config: ModelConfig, image: Image, tmp_path: Path) -> None:
    """One slab: sections are 6 mm apart along y."""
    scan = replace(long(image, 60), spacing_zyx=(1.0, 6.0, 1.0))
    peak, foreseen = peak_and_plan(config, [scan], tmp_path, vram_budget_mib=100_000)
    assert 0.4 * foreseen < peak <= foreseen
