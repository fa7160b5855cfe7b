"""The app's own path through torch, on models and a scan made up for it: what app.lean.find tries.

Every kind of network, every option but ``--exact`` (which imports all of torch), the plan of a GPU,
and the GPU itself where there is one.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

import app.kernels.load
import app.lesion_filter  # noqa: F401 - where the app imports it is no matter here
from app.image import Image
from app.kernels.trial import works
from app.listener import SILENT
from app.loading import find_device
from app.memory.budget import DEFAULT_BUDGET_MIB
from app.model import (
    LesionFilter,
    Member,
    Model,
    ModelConfig,
    Network,
    Normalization,
    Resampling,
    load_model,
    save_manifest,
)
from app.networks import build_network
from app.predict import Options, Predictor
from volumes import nifti
from volumes.files import sha256
from volumes.grid import Grid

_CT = Normalization("CTNormalization", False, 0.0, 300.0, -900.0, 900.0)
_PLAIN = ModelConfig(
    name="plain",
    dataset="Dataset000_None",
    plans="nnUNetPlans",
    configuration="3d_fullres",
    trainer="nnUNetTrainer",
    channels=("CT",),
    labels=("background", "lesion"),
    region_values=None,
    transpose=(0, 1, 2),
    spacing=(3.0, 1.5, 1.5),
    patch_size=(8, 16, 16),
    normalization=(_CT,),
    resample_data=Resampling("default", 3, None),
    resample_logits=Resampling("default", 1, None),
    mirror_axes=(0, 1, 2),
    dtype="float16",
    network=Network(
        name="PlainConvUNet",
        input_channels=1,
        heads=2,
        features=(4, 8, 8),
        kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        encoder_blocks=(1, 2, 2),
        decoder_convs=(1, 1),
        conv_bias=True,
        norm_eps=1e-5,
        negative_slope=0.01,
    ),
    members=(),
)
_MODELS = {
    "plain": (_PLAIN, 1),
    "filtered": (replace(_PLAIN, lesion_filter=LesionFilter(0.01, 0.5, "none")), 1),
    "residual, regions, two members": (
        replace(
            _PLAIN,
            channels=("CT", "PET"),
            labels=("a", "b", "c"),
            region_values=(1, 2, 3),
            transpose=(1, 0, 2),
            normalization=(_CT, Normalization("ZScoreNormalization", True)),
            resample_data=Resampling("torch", 1, None),
            resample_logits=Resampling("torch", 1, None),
            dtype="float32",
            network=replace(_PLAIN.network, name="ResidualEncoderUNet", input_channels=2, heads=3),
        ),
        2,
    ),
}


def results() -> dict[str, str]:
    """A digest, or the words, of what every part of the path gives."""
    with tempfile.TemporaryDirectory() as folder:
        return dict(_results(Path(folder)))


def _results(folder: Path) -> Iterator[tuple[str, str]]:
    yield "calls of a GPU", _call_for_a_gpu()
    yield "a kernel's trial", str(works(_no_kernel, torch.device("cpu")))
    devices = {torch.device("cpu"), find_device("auto")}
    for name, (config, members) in _MODELS.items():
        model = _written(folder / name, config, members)
        scan = [_scan(number) for number in range(len(config.channels))]
        gpu = Options(torch.device("cuda"), vram_budget_mib=DEFAULT_BUDGET_MIB)
        yield f"{name}: needs on a GPU", str(Predictor(model, gpu).needs)
        for device in devices:
            budget = DEFAULT_BUDGET_MIB if device.type == "cuda" else None
            for words, options in (
                ("default", Options(device, vram_budget_mib=budget)),
                ("tta", Options(device, tta=True, vram_budget_mib=budget)),
                ("body", Options(device, body=True, step_size=0.8, vram_budget_mib=budget)),
            ):
                yield f"{name}, {device}: {words}", _digest(model, options, scan, folder)


def _no_kernel(*_: object) -> None:
    """Does nothing; that it fails its trial shows that all of that was gone through."""


def _call_for_a_gpu() -> str:
    """What the app asks a GPU for, asked for as far as it goes where there is none."""
    device = torch.device("cuda", 0)
    for call in (
        lambda: torch.cuda.mem_get_info(device),
        lambda: torch.cuda.set_per_process_memory_fraction(1.0, 0),
        lambda: torch.cuda.memory_reserved(0),
        lambda: torch.cuda.empty_cache(),
        lambda: torch.cuda.get_device_properties(device),
        lambda: torch.cuda.current_stream(),
        lambda: torch.cuda.synchronize(),
        lambda: torch.cuda.graph_pool_handle(),
        lambda: torch.cuda.CUDAGraph(),
        lambda: torch.cuda.Stream(device),
        lambda: torch.cuda.Event(),
        lambda: torch.cuda.stream(None).__enter__(),
        lambda: torch.zeros(1, device=device),
        lambda: torch.empty(1, pin_memory=True),
    ):
        with contextlib.suppress(
            RuntimeError, AssertionError
        ):  # no driver, or a build without CUDA
            call()
    return "made"


def _digest(model: Model, options: Options, scan: list[Image], folder: Path) -> str:
    predictor, mask = Predictor(model, options), folder / "mask.nii"
    logits, _ = predictor.logits_on_grid(scan)
    digest = hashlib.sha256(logits.numpy().tobytes())
    # A first scan, and one more: what is made for the first is there already.
    for deadline in (None, time.perf_counter() + 3600):
        predictor.write(scan, mask, SILENT, deadline)
        digest.update(mask.read_bytes())
    return digest.hexdigest()


def _written(folder: Path, config: ModelConfig, members: int) -> Model:
    """The model with random weights, as a user's would be on disk."""
    folder.mkdir()
    written = []
    for number in range(members):
        random = np.random.default_rng(number)
        file = folder / f"member_{number}.safetensors"
        weights = {
            name: random.normal(size=tuple(value.shape)).astype(config.dtype)
            for name, value in build_network(config.network).state_dict().items()
        }
        save_file(weights, file)
        written.append(Member(file.name, sha256(file), "random"))
    save_manifest(folder, replace(config, members=tuple(written)))
    return load_model(folder)


def _scan(number: int) -> Image:
    """Noise in a body with air around it, 16 x 40 x 40."""
    random = np.random.default_rng(number)
    voxels = np.full((16, 40, 40), -1000, np.int16)
    voxels[2:14, 4:36, 4:36] = random.integers(-200, 300, (12, 32, 32))
    spacing_zyx = (2.5, 1.2, 1.2)
    grid = Grid.of_affine((16, 40, 40), np.diag([*spacing_zyx[::-1], 1.0]))
    return Image(voxels, spacing_zyx, nifti.header_of(grid), ())
