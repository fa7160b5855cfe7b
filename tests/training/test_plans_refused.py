"""What the exporter cannot reproduce is refused, by name, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.nnunet_models import Json, dataset, plans
from tests.training.test_plans import ARCH, BASE, DEFAULT, TORCH, read, without
from tests.training.trained_folder import put
from training.errors import TrainingError
from training.plans import model_config


def refusal(folder: Path, plans_json: Any, dataset_json: Any = None) -> str:
    with pytest.raises(TrainingError) as caught:
        read(folder, plans_json, dataset_json)
    message = str(caught.value)
    assert "\n" not in message
    return message


REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
REFUSED_LABELS: dict[str, tuple[Json, str]] = {
    "no background": ({"labels": {"lesion": 1}}, "'background' should be 0"),
    "version 1": ({"labels": {"0": "background", "1": "lesion"}}, "nnU-Net v2's form"),
    "background elsewhere": ({"labels": {"background": 1, "a": 0}}, "'background' should be 0"),
    "a gap": ({"labels": {"background": 0, "a": 1, "b": 3}}, "should be 0, 1, 2, ..., found"),
    "twice": ({"labels": {"background": 0, "a": 1, "b": 1}}, "should be 0, 1, 2, ..., found"),
    "ignore in the middle": (
        {"labels": {"background": 0, "a": 1, "ignore": 1}},
        "'ignore' should be 2, found 1",
    ),
    "regions without order": ({"labels": REGIONS}, "regions_class_order None does not fit"),
    "regions with another order": (
        {"labels": REGIONS, "regions_class_order": [1, 2, 3]},
        r"regions_class_order [1, 2, 3] does not fit the regions ('whole', 'core')",
    ),
    "an empty list": ({"labels": {"background": 0, "a": []}}, "is malformed"),
    "no number": ({"labels": {"background": 0, "a": "one"}}, "is malformed"),
    "regions as text": (
        {"labels": {**REGIONS, "whole": ["1", "2"]}, "regions_class_order": [1, 2]},
        "whole is ['1', '2'], text",
    ),
    "text beside regions": (
        {"labels": {**REGIONS, "background": "0"}, "regions_class_order": [1, 2]},
        "background is '0', text",
    ),
    "order as text": (
        {"labels": REGIONS, "regions_class_order": ["1", "2"]},
        "regions_class_order is ['1', '2'], text",
    ),
    "ignore as text": (
        {"labels": {"background": "0", "a": "1", "ignore": "2"}},
        "ignore is '2', text",
    ),
    "a list": ({"labels": ["background", "a"]}, "is malformed"),
    "channels as a list": ({"channel_names": ["CT"]}, "is malformed"),
}


@pytest.mark.parametrize("name", REFUSED_LABELS)
def test_dataset_refused(name: str, tmp_path: Path) -> None:
    changes, expected = REFUSED_LABELS[name]
    message = refusal(tmp_path, plans(), {**dataset(), **changes})
    assert message.startswith(f"{tmp_path / 'dataset.json'}: ")
    assert expected in message


@pytest.mark.parametrize("key", ["labels", "channel_names"])
def test_dataset_lacks_a_key(key: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, plans(), without(dataset(), key))
    named = "modality" if key == "channel_names" else key
    assert message == f"{tmp_path / 'dataset.json'}: has no '{named}'; is it from nnU-Net v2?"


# path, value, what the message says was found, and what it says is supported
REFUSED: list[tuple[str, Any, str, str]] = [
    (f"{BASE}/patch_size", [32, 32], "expected two values", "found [3.0, 1.5, 1.5]"),
    (f"{BASE}/patch_size", [32], "patch_size [32] is not", "of two or three dimensions"),
    *(
        ("image_reader_writer", reader, f"image_reader_writer {reader} is", "only SimpleITKIO, Nib")
        for reader in ("NaturalImage2DIO", "Tiff3DIO")
    ),
    ("label_manager", "MyLabels", "label_manager MyLabels is not", "only LabelManager"),
    (f"{BASE}/preprocessor_name", "Mine", "preprocessor_name Mine is", "only DefaultPreprocessor"),
    (
        f"{BASE}/normalization_schemes",
        ["MyNormalization"],
        "normalization MyNormalization is not supported",
        "only CTNormalization, ZScoreNormalization",
    ),
    (f"{BASE}/normalization_schemes", ["CTNormalization"] * 2, "2 normalization", "1 channels"),
    *(
        (
            f"{BASE}/architecture/network_class_name",
            name,
            f"network class {name} is not supported",
            "only PlainConvUNet, ResidualEncoderUNet",
        )
        for name in (
            "dynamic_network_architectures.architectures.primus.Primus",
            "dynamic_network_architectures.architectures.unet.ResidualUNet",
            "my_package.unet.PlainConvUNet",
        )
    ),
    (f"{ARCH}/conv_op", "torch.nn.modules.conv.Conv2d", "conv_op", "torch.nn.modules.conv.Conv3d"),
    (f"{ARCH}/norm_op", "torch.nn.BatchNorm3d", "norm_op", "instancenorm.InstanceNorm3d"),
    (f"{ARCH}/norm_op", None, "norm_op", "instancenorm.InstanceNorm3d"),
    (f"{ARCH}/nonlin", "torch.nn.ReLU", "nonlin", "torch.nn.LeakyReLU"),
    (f"{ARCH}/norm_op_kwargs", {"affine": False}, "norm_op without affine", "not supported"),
    (f"{ARCH}/norm_op_kwargs", None, "norm_op without affine", "not supported"),
    *(
        (f"{ARCH}/{name}", value, f"network arguments {{'{name}': {value!r}}}", "only nnU-Net's")
        for name, value in (
            ("nonlin_first", True),
            ("stem_channels", 16),
            ("bottleneck_channels", [8, 8, 8]),
            ("block", "dynamic_network_architectures.building_blocks.residual.BottleneckD"),
        )
    ),
    *(
        (f"{ARCH}/{name}", [2], "expected one entry for each of", "stages, found [2]")
        for name in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage")
    ),
    (f"{ARCH}/n_conv_per_stage_decoder", [2] * 3, "expected one entry for each of 2", "[2, 2, 2]"),
    (f"{ARCH}/n_stages", 10**9, "1000000000 stages", "16 at most"),
    (f"{ARCH}/features_per_stage", 10**9, "network.features are from", "1 to 16384"),
    (f"{ARCH}/n_conv_per_stage", 10**9, "network.encoder_blocks are from", "1 to 64"),
    (f"{BASE}/patch_size", [1e9] * 3, "patch_size are from", "1 to 67108864"),
    (f"{ARCH}/strides", [[1, 1], [2, 2], [2, 2]], "expected three values", "found [1, 1]"),
    ("transpose_forward", [0, 1], "expected three values", "found [0, 1]"),
    (f"{BASE}/spacing", [1.0, "x", 1.0], "is malformed", "'x'"),
    (f"{BASE}/patch_size", None, "is malformed", "is it from nnU-Net v2?"),
    ("configurations", {"2d": {}}, "has no configuration '3d_fullres'", "only 2d"),
    *(
        (
            f"{BASE}/resampling_fn_{key}",
            function,
            f"resampling_fn_{key} {function} is not supported",
            f"only {DEFAULT}, {TORCH}",
        )
        for key in ("data", "probabilities")
        for function in ("no_resampling_hack", "resample_torch_simple", "mine")
    ),
    *(
        (
            f"{BASE}/resampling_fn_{key}_kwargs",
            kwargs,
            f"resampling_fn_{key}_kwargs: {found} is not supported",
            "only ",
        )
        for key in ("data", "probabilities")
        for kwargs, found in (
            ({"order": 0}, "order=0"),
            ({"order": 2}, "order=2"),
            ({"order": 3, "order_z": 1}, "order_z=1"),
            ({"is_seg": True}, "is_seg=True"),
            ({"separate_z_anisotropy_threshold": 2}, "separate_z_anisotropy_threshold=2"),
            ({"mode": "nearest"}, "mode=nearest"),
        )
    ),
    (
        f"{BASE}/resampling_fn_probabilities_kwargs",
        {"order": 3},
        "resampling_fn_probabilities_kwargs: order=3 is not supported",
        "only 1",
    ),
]


@pytest.mark.parametrize(("path", "value", "found", "supported"), REFUSED)
def test_plans_refused(path: str, value: Any, found: str, supported: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, put(plans(), path, value))
    assert message.startswith(f"{tmp_path / 'plans.json'}: ")
    assert found in message
    assert supported in message


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("resampling_fn_seg", TORCH, f"resampling_fn_seg {TORCH} with"),
        ("resampling_fn_seg_kwargs", {"is_seg": True, "order": 0, "order_z": 0}, "'order': 0"),
        ("resampling_fn_seg_kwargs", {"is_seg": True, "order": 1, "order_z": 1}, "'order_z': 1"),
    ],
)
def test_labels_of_a_cascade_resampled_otherwise(
    key: str, value: Any, found: str, tmp_path: Path
) -> None:
    content = put(plans(), f"{BASE}/previous_stage", "3d_lowres")
    message = refusal(tmp_path, put(content, f"{BASE}/{key}", value))
    assert found in message
    assert f"is not supported in a cascade, only {DEFAULT} with" in message
    read(tmp_path, put(plans(), f"{BASE}/{key}", value))  # nothing else uses it


@pytest.mark.parametrize(
    "kwargs",
    [
        {"mode": "nearest"},
        {"aniso_axis_mode": "linear"},
        {"order": 3},
        {"order_z": 0},
        {"is_seg": True},
        {"separate_z_anisotropy_threshold": 2},
    ],
)
def test_torch_resampling_refused(kwargs: Json, tmp_path: Path) -> None:
    content = put(plans(data=TORCH), f"{BASE}/resampling_fn_data_kwargs", kwargs)
    ((argument, value),) = kwargs.items()
    expected = f"resampling_fn_data_kwargs: {argument}={value} is not supported with {TORCH}"
    assert expected in refusal(tmp_path, content)


def test_old_network_class_refused(tmp_path: Path) -> None:
    content = put(plans(legacy=True), f"{BASE}/UNet_class_name", "MyUNet")
    assert "network class MyUNet is not supported, only Plain" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    "key", ["configurations", "dataset_name", "plans_name", "transpose_forward"]
)
def test_plans_lack_a_key(key: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, without(plans(), key))
    assert message == f"{tmp_path / 'plans.json'}: has no '{key}'; is it from nnU-Net v2?"


@pytest.mark.parametrize("key", ["spacing", "resampling_fn_data", "normalization_schemes"])
def test_configuration_lacks_a_key(key: str, tmp_path: Path) -> None:
    content = plans()
    del content["configurations"]["base"][key]
    assert f"plans.json: has no '{key}'" in refusal(tmp_path, content)


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "is missing; give the folder that nnU-Net's training wrote"),
        (b"{", "cannot be read"),
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[1]", "should hold a JSON object"),
    ],
)
def test_file_refused(name: str, content: bytes | None, expected: str, tmp_path: Path) -> None:
    read(tmp_path, plans())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError) as caught:
        model_config(tmp_path, "3d_fullres", "nnUNetTrainer", (), "float32")
    assert str(caught.value).startswith(f"{tmp_path / name}: {expected}")
    assert "\n" not in str(caught.value)
