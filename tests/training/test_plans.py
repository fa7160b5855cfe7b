from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from app.model import ModelConfig, Normalization, Resampling
from tests.nnunet_models import CT_PROPERTIES, Json, dataset, flat, plans
from tests.training.trained_folder import NETWORK, put
from training.errors import TrainingError
from training.plans import label_heads, model_config, resolve_configuration

BASE = "configurations/base"
ARCH = f"{BASE}/architecture/arch_kwargs"
DEFAULT, TORCH = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"
RESIDUAL: Json = {"name": "ResidualEncoderUNet", "encoder_blocks": (1, 2, 2)}
CT = {k: CT_PROPERTIES[k] for k in ("mean", "std", "percentile_00_5", "percentile_99_5")}


def read(folder: Path, plans_json: Any, dataset_json: Any = None) -> ModelConfig:
    (folder / "plans.json").write_text(json.dumps(plans_json))
    (folder / "dataset.json").write_text(json.dumps(dataset_json or dataset()))
    return model_config(folder, "3d_fullres", "nnUNetTrainer", (0, 1), "float32")


def without(content: Json, key: str) -> Json:
    return {k: v for k, v in content.items() if k != key}


def test_everything_is_taken_over(tmp_path: Path) -> None:
    config = read(tmp_path, plans(spacing=(3, 1.5, 1.25), transpose=(2, 0, 1)))
    assert config == ModelConfig(
        name="",
        dataset="Dataset900_Parity",
        plans="nnUNetPlans",
        configuration="3d_fullres",
        trainer="nnUNetTrainer",
        channels=("channel 0",),
        labels=("background", "lesion"),
        region_values=None,
        transpose=(2, 0, 1),
        spacing=(3.0, 1.5, 1.25),
        patch_size=(16, 32, 32),
        normalization=(Normalization("CTNormalization", False, **CT),),
        resample_data=Resampling("default", 3, None),
        resample_logits=Resampling("default", 1, None),
        mirror_axes=(0, 1),
        dtype="float32",
        network=NETWORK,
        members=(),
        reader="SimpleITKIO",
    )
    assert all(type(s) is float for s in config.spacing)


@pytest.mark.parametrize("legacy", [False, True])
def test_two_dimensions_are_three_of_which_one_is_a_section(legacy: bool, tmp_path: Path) -> None:
    config = read(tmp_path, flat(plans((3.0, 1.5, 1.25), legacy=legacy)))
    assert config.spacing == (None, 1.5, 1.25)
    assert config.patch_size == (1, 32, 32)
    assert config.mirror_axes == (1, 2)
    assert config.network.dimensions == 2
    assert config.network.kernel_sizes[2] == (1, 3, 3)
    assert config.network.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2))


OLD = {"features": (6, 12, 16), "decoder_convs": (2, 2)}
BLOCK = "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"
# Plans, and in what the network of them differs from NETWORK.
NETWORKS: dict[str, tuple[Json, Json]] = {
    "plain": (plans(), {}),
    "residual": (plans(residual=True), RESIDUAL),
    "old plain": (plans(legacy=True), OLD),
    "old residual": (plans(legacy=True, residual=True), RESIDUAL | OLD),
    "old, one integer for the decoder": (
        put(plans(legacy=True), f"{BASE}/n_conv_per_stage_decoder", 3),
        OLD | {"decoder_convs": (3, 3)},
    ),
    "another module of the same package": (
        put(plans(residual=True), f"{BASE}/architecture/network_class_name", BLOCK),
        RESIDUAL,
    ),
}
# The same by arguments of the network.
ARGUMENTS: dict[str, tuple[Json, Json]] = {
    "one integer for features": ({"features_per_stage": 8}, {"features": (8, 8, 8)}),
    "one integer for convolutions": ({"n_conv_per_stage": 3}, {"encoder_blocks": (3, 3, 3)}),
    "one integer for the decoder": ({"n_conv_per_stage_decoder": 2}, {"decoder_convs": (2, 2)}),
    "one integer for kernels": ({"kernel_sizes": 3}, {"kernel_sizes": ((3, 3, 3),) * 3}),
    "an integer for one stage": (
        {"strides": [1, [1, 2, 2], 2]},
        {"strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2))},
    ),
    "bias, epsilon and slope": (
        {
            "conv_bias": False,
            "norm_op_kwargs": {"eps": 1e-3, "affine": True},
            "nonlin_kwargs": {"negative_slope": 0.2},
        },
        {"conv_bias": False, "norm_eps": 1e-3, "negative_slope": 0.2},
    ),
    "PyTorch's epsilon and slope": (
        {"norm_op_kwargs": {"affine": True}, "nonlin_kwargs": None},
        {},
    ),
    "what does nothing at inference": (
        {
            "dropout_op": "torch.nn.Dropout3d",
            "dropout_op_kwargs": {"p": 0.5},
            "deep_supervision": True,
        },
        {},
    ),
    "defaults spelled out": ({"nonlin_first": False}, {}),
}
NETWORKS |= {name: (plans(architecture=given), of) for name, (given, of) in ARGUMENTS.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, tmp_path: Path) -> None:
    plans_json, differs = NETWORKS[name]
    assert read(tmp_path, plans_json).network == dataclasses.replace(NETWORK, **differs)


def test_inheritance() -> None:
    chain = {
        "a": {"inherits_from": "b", "x": 1},
        "b": {"inherits_from": "c", "x": 2, "y": 2},
        "c": {"x": 3, "y": 3, "z": 3},
    }
    found = resolve_configuration({"configurations": chain}, "a")
    assert {k: found[k] for k in "xyz"} == {"x": 1, "y": 2, "z": 3}
    assert chain["b"] == {"inherits_from": "c", "x": 2, "y": 2}  # not changed on the way


@pytest.mark.parametrize(
    ("configurations", "expected"),
    [
        ({"a": {"inherits_from": "a"}}, "inherit in a circle: a"),
        ({"a": {"inherits_from": "b"}, "b": {"inherits_from": "a"}}, "in a circle: a -> b"),
        ({"2d": {}, "3d_lowres": {}}, "has no configuration 'a', only 2d, 3d_lowres"),
        ({"a": {"inherits_from": "gone"}}, "has no configuration 'gone', only a"),
    ],
)
def test_inheritance_refused(configurations: Json, expected: str) -> None:
    with pytest.raises(TrainingError, match=expected):
        resolve_configuration({"configurations": configurations}, "a")


TWO, THREE = ("background", "lesion"), ("background", "a", "b")
REGIONS, PAINTED = ("whole", "core", "rim"), (7, 5, 3)
LABELS: dict[str, tuple[Json, tuple[Any, Any]]] = {
    "two": ({"background": 0, "lesion": 1}, (TWO, None)),
    "several, out of order": ({"b": 2, "background": 0, "a": 1}, (THREE, None)),
    "ignore has no head": ({"background": 0, "lesion": 1, "ignore": 2}, (TWO, None)),
    "lists of one": ({"background": 0, "a": [1], "b": [2]}, (THREE, None)),
    "text": ({"background": "0", "lesion": "1"}, (TWO, None)),
    "text in another order": ({"b": "2", "background": "0", "a": ["1"]}, (THREE, None)),
    "regions": (
        {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3},
        (REGIONS, PAINTED),
    ),
    "regions with ignore": (
        {"ignore": 4, "background": 0, "whole": [1, 2, 3], "core": [2], "zero": [0], "rim": [3]},
        (REGIONS, PAINTED),
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels(name: str) -> None:
    labels, expected = LABELS[name]
    assert label_heads(dataset(labels, regions_class_order=list(PAINTED))) == expected


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_reader(reader: str, tmp_path: Path) -> None:
    assert read(tmp_path, plans() | {"image_reader_writer": reader}).reader == reader


def test_names_of_older_versions(tmp_path: Path) -> None:
    old = plans()
    properties = "foreground_intensity_properties"
    old[f"{properties}_by_modality"] = old.pop(f"{properties}_per_channel")
    config = read(tmp_path, old, {**without(dataset(), "channel_names"), "modality": {"0": "CT"}})
    assert config.channels == ("CT",)
    assert config == dataclasses.replace(read(tmp_path, plans()), channels=("CT",))


def test_one_normalization_per_channel(tmp_path: Path) -> None:
    schemes = ("ZScoreNormalization", "CTNormalization", "NoNormalization")
    content = plans(schemes=schemes, use_mask=True)
    content["foreground_intensity_properties_per_channel"]["1"] = {**CT_PROPERTIES, "mean": -7.0}
    config = read(tmp_path, content, dataset(channels=3))
    assert config.normalization == (
        Normalization("ZScoreNormalization", True),
        Normalization("CTNormalization", True, **{**CT, "mean": -7.0}),
        Normalization("NoNormalization", True),
    )
    assert config.network.input_channels == 3


# What nnU-Net's planners write, and what its functions take for an argument that is left out.
RESAMPLING: dict[str, tuple[str, Json, Resampling]] = {
    "default": (DEFAULT, {"order": 3, "force_separate_z": None}, Resampling("default", 3, None)),
    "default, linear": (DEFAULT, {"order": 1, "order_z": 0}, Resampling("default", 1, False)),
    "default, bare": (DEFAULT, {}, Resampling("default", 3, False)),
    "default, threshold": (
        DEFAULT,
        {"is_seg": False, "separate_z_anisotropy_threshold": 3, "force_separate_z": True},
        Resampling("default", 3, True),
    ),
    "torch, bare": (TORCH, {}, Resampling("torch", 1, None)),
    "torchres": (
        TORCH,
        {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False},
        Resampling("torch", 1, False),
    ),
    "torchres_sepz": (
        TORCH,
        {
            "is_seg": False,
            "force_separate_z": None,
            "memefficient_seg_resampling": False,
            "separate_z_anisotropy_threshold": 3,
        },
        Resampling("torch", 1, None),
    ),
    "torch, all defaults": (
        TORCH,
        {"mode": "linear", "aniso_axis_mode": "nearest-exact", "num_threads": 8},
        Resampling("torch", 1, None),
    ),
}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((name, "data") for name in RESAMPLING),
        *((name, "probabilities") for name, case in RESAMPLING.items() if case[2].order == 1),
    ],
)
def test_resampling(name: str, key: str, tmp_path: Path) -> None:
    function, kwargs, expected = RESAMPLING[name]
    content = put(plans(), f"{BASE}/resampling_fn_{key}", function)
    config = read(tmp_path, put(content, f"{BASE}/resampling_fn_{key}_kwargs", kwargs))
    assert (config.resample_data if key == "data" else config.resample_logits) == expected
