"""The exported-model format: what is written is read, and what breaks its rules is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.model import (
    MANIFEST,
    Member,
    ModelConfig,
    ModelError,
    Network,
    Normalization,
    Resampling,
    load_model,
    save_manifest,
)

Json = dict[str, Any]
OPTIONAL = ("notice", "lesion_filter", "reader", "postprocessing", "ensemble", "previous_stage")
WEIGHTS = b"only the checksum is looked at"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
REMOVED = object()

CONFIG = ModelConfig(
    name="model",
    dataset="Dataset001_Lesions",
    plans="nnUNetPlans",
    configuration="3d_fullres",
    trainer="nnUNetTrainer",
    channels=("CT", "PET"),
    labels=("background", "lesion"),
    region_values=None,
    transpose=(2, 0, 1),
    spacing=(3.0, 0.1 + 0.2, 1 / 3),  # no short decimal form
    patch_size=(16, 32, 48),
    normalization=(
        Normalization("CTNormalization", False, 34.5, 50.25, -130.0, 161.0),
        Normalization("ZScoreNormalization", True),
    ),
    resample_data=Resampling("default", 3, None),
    resample_logits=Resampling("torch", 1, True),
    mirror_axes=(0, 2),
    dtype="float32",
    network=Network(
        name="ResidualEncoderUNet",
        input_channels=2,
        heads=2,
        features=(4, 8, 16),
        kernel_sizes=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        encoder_blocks=(1, 2, 3),
        decoder_convs=(2, 1),
        conv_bias=True,
        norm_eps=1e-5,
        negative_slope=0.01,
    ),
    members=(Member("a.safetensors", SHA256, "x/fold_0"), Member("b.safetensors", SHA256, "ü")),
    notice="adults only",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid model."""
    for member in CONFIG.members:
        (tmp_path / member.file).write_bytes(WEIGHTS)
    save_manifest(tmp_path, CONFIG)
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder).check_weights()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < len(str(folder)) + 350  # one line that can be read
    return message


def rewrite(folder: Path, change: Callable[[Json], object]) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def put(path: str, value: Any) -> Callable[[Json], None]:
    """Replaces the entry at ``path`` (a/0/b), or takes it out."""

    def change(content: Any) -> None:
        *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
        for parent in parents:
            content = content[parent]
        if value is REMOVED:
            del content[last]
        else:
            content[last] = value

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"notice": None},
        {"labels": ("whole", "core"), "region_values": (2, 1)},
        {"mirror_axes": ()},
        {"dtype": "float16"},
        {"channels": ("Röntgen\n\u2028", '"')},
        {"members": CONFIG.members[:1]},
    ],
    ids=str,
)
def test_round_trip(changes: Json, folder: Path) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    save_manifest(folder, config)
    model = load_model(folder)
    assert model.config == config
    assert model.folder == folder
    files = [model.weights_file(m) for m in model.config.members]
    assert files == [folder / m.file for m in config.members]


def test_the_file_can_be_read_by_anyone(folder: Path) -> None:
    """Plain JSON, one entry a field, ASCII whatever the locale."""
    raw = (folder / MANIFEST).read_bytes()
    assert raw.isascii()
    assert raw.endswith(b"}\n")
    content = json.loads(raw)
    assert content["format_version"] == 1
    assert content.keys() - {"format_version"} == {f.name for f in dataclasses.fields(ModelConfig)}


def test_fields_with_a_default_may_be_left_out(folder: Path) -> None:
    def change(content: Json) -> None:
        for key in OPTIONAL:
            del content[key]
        for key in ("mean", "std", "percentile_00_5", "percentile_99_5"):
            del content["normalization"][1][key]

    rewrite(folder, change)
    assert load_model(folder).config == dataclasses.replace(CONFIG, notice=None)


def test_an_integer_may_stand_for_a_number(folder: Path) -> None:
    rewrite(folder, put("spacing", [3, 1, 1]))
    spacing = load_model(folder).config.spacing
    assert spacing == (3.0, 1.0, 1.0)
    assert all(type(s) is float for s in spacing)


def test_no_model(tmp_path: Path) -> None:
    expected = "no model.json here; export a model with `python -m training.export`"
    assert refusal(tmp_path) == f"{tmp_path}: {expected}"
    assert refusal(tmp_path / "gone") == f"{tmp_path / 'gone'}: {expected}"


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be read" in refusal(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        *((c, "cannot be read (") for c in (b"", b"{", b"\xff\xfe\x00", b'{"a": }', b"weights")),
        *((c, "format version None") for c in (b"[]", b"null", b'"text"', b"3", b"{}")),
    ],
)
def test_not_a_manifest(content: bytes, expected: str, folder: Path) -> None:
    (folder / MANIFEST).write_bytes(content)
    message = refusal(folder)
    assert message.startswith(f"{folder / MANIFEST}: {expected}")
    assert message.endswith("; export the model again")


REQUIRED = [f.name for f in dataclasses.fields(ModelConfig) if f.name not in OPTIONAL]
WRONG_KEYS: list[tuple[str, Any, str]] = [
    *(
        ("format_version", v, f"format version {v}, this app reads 1; export the model again")
        for v in (0, 2, "1", None)
    ),
    *((key, REMOVED, f"the top level lacks ['{key}']") for key in REQUIRED),
    ("network/heads", REMOVED, "network lacks ['heads'], has unknown []"),
    ("resample_data/order", REMOVED, "resample_data lacks ['order'], has unknown []"),
    ("normalization/0/scheme", REMOVED, "normalization[0] lacks ['scheme'], has unknown []"),
    ("members/1/sha256", REMOVED, "members[1] lacks ['sha256'], has unknown []"),
    ("future", 1, "the top level lacks [], has unknown ['future']"),
    ("network/future", 1, "network lacks [], has unknown ['future']"),
]
WRONG_TYPES: list[tuple[str, Any, str]] = [
    ("name", 3, "'name' should be text, found 3"),
    ("name", None, "'name' should be text, found None"),
    ("notice", 3, "'notice' should be text, found 3"),
    ("lesion_filter", 0.5, "'lesion_filter' should be an object, found 0.5"),
    ("labels", "background", "'labels' should be a list, found 'background'"),
    ("labels/1", 1, "'labels[1]' should be text, found 1"),
    ("region_values", {}, "'region_values' should be a list, found {}"),
    ("region_values", [1, 2.0], "'region_values[1]' should be an integer, found 2.0"),
    ("transpose", [0, 1], "'transpose' should be a list of 3, found [0, 1]"),
    ("spacing", [1.0, 1.0, "1"], "'spacing[2]' should be a finite number, found '1'"),
    ("spacing", [1.0, 1.0, True], "'spacing[2]' should be a finite number, found True"),
    ("patch_size", [16.0, 32, 32], "'patch_size[0]' should be an integer, found 16.0"),
    ("patch_size", [True, 32, 32], "'patch_size[0]' should be an integer, found True"),
    ("mirror_axes", None, "'mirror_axes' should be a list, found None"),
    ("network", [], "'network' should be an object, found []"),
    ("network/conv_bias", 1, "'network.conv_bias' should be true or false, found 1"),
    ("network/norm_eps", None, "'network.norm_eps' should be a finite number, found None"),
    ("network/strides/1", [2, 2], "'network.strides[1]' should be a list of 3, found [2, 2]"),
    ("network/strides/1/2", "2", "'network.strides[1][2]' should be an integer, found '2'"),
    (
        "resample_data/force_separate_z",
        0,
        "'resample_data.force_separate_z' should be true or false, found 0",
    ),
    ("normalization/0/mean", "34", "'normalization[0].mean' should be a finite number, found '34'"),
    ("members/0", "a.safetensors", "'members[0]' should be an object, found 'a.safetensors'"),
    ("members/0/file", None, "'members[0].file' should be text, found None"),
    ("name", list(range(1000)), "'name' should be text, found [0, 1, 2"),
]
PER_STAGE = "kernel_sizes, strides, encoder_blocks have one entry per stage"
CT_RULE = "CTNormalization has mean, std, percentile_00_5, percentile_99_5"
FILES = "members name files in the model's own folder"
BROKEN_RULES: list[tuple[str, Any, str]] = [
    ("spacing/0", None, "spacing has no value across sections, null, for a network of two dim"),
    ("network/dimensions", 2, "spacing has no value across sections, null, for a network of two"),
    ("network/dimensions", 1, "network.dimensions is 3, or 2 where patch_size, kernel_sizes, st"),
    ("network/features/0", 10**9, "network.features are from 1 to 16384"),
    ("network/encoder_blocks/0", 10**9, "network.encoder_blocks are from 1 to 64"),
    ("network/features", [8] * 10**5, "network.features has 1 to 16 stages"),
    ("network/strides/0/0", 0, "network.strides are from 1 to 64"),
    ("patch_size", [1024] * 3, "patch_size is 67108864 voxels at most"),
    ("network/name", "MyUNet", "network.name is one of ('PlainConvUNet', 'ResidualEncoderUNet')"),
    ("reader", "Tiff3DIO", "reader is one of ('SimpleITKIO', 'NibabelIO'"),
    (
        "postprocessing",
        {"keep_largest": [[1], [1, 0]], "source": "x"},
        "keep_largest names labels from 1",
    ),
    ("postprocessing", {"keep_largest": [[]], "source": "x"}, "keep_largest names labels from 1"),
    ("dtype", "bfloat16", "dtype is one of ('float32', 'float16')"),
    ("transpose", [0, 1, 1], "transpose is a permutation of 0, 1, 2"),
    ("transpose", [1, 2, 3], "transpose is a permutation of 0, 1, 2"),
    ("spacing", [1.0, 0.0, 1.0], "spacing is from 0.001 to 1000.0 mm"),
    ("spacing", [1.0, 1.0, -1.0], "spacing is from 0.001 to 1000.0 mm"),
    ("patch_size", [16, 0, 32], "patch_size are from 1 to 67108864"),
    ("patch_size", [16, 33, 32], "patch_size is divisible by the product of the strides"),
    ("normalization", [], "normalization has one entry per channel"),
    ("channels", ["CT"], "normalization has one entry per channel"),
    ("network/input_channels", 1, "network.input_channels equals the channels"),
    ("labels", ["background", "a", "b"], "labels has one entry per head"),
    ("network/heads", 3, "labels has one entry per head"),
    ("region_values", [1], "region_values has one entry per head"),
    ("mirror_axes", [0, 3], "mirror_axes are among 0, 1, 2"),
    ("mirror_axes", [-1], "mirror_axes are among 0, 1, 2"),
    ("network/features", [4, 8], PER_STAGE),
    ("network/kernel_sizes", [[3, 3, 3]], PER_STAGE),
    ("network/strides", [[1, 1, 1]] * 4, PER_STAGE),
    ("network/encoder_blocks", [1, 2], PER_STAGE),
    ("network/decoder_convs", [1, 1, 1], "decoder_convs has one entry less than stages"),
    ("members", [], "members is not empty"),
    ("members/0/file", "../a.safetensors", FILES),
    ("members/1/file", "/etc/passwd", FILES),
    ("members/1/file", "sub/b.safetensors", FILES),
    ("members/1/file", "./b.safetensors", FILES),
    ("resample_data/function", "none", "resample_data.function is one of ('default', 'torch')"),
    ("resample_logits/function", "none", "resample_logits.function is one of"),
    ("resample_data/order", 2, "resample_data.order is one of (1, 3)"),
    ("resample_logits/order", 0, "resample_logits.order is one of (1,)"),
    ("resample_logits/order", 3, "resample_logits.order is one of (1,)"),
    ("normalization/1/scheme", "Mine", "a normalization scheme is one of ('CTNormalization',"),
    *(
        (f"normalization/0/{key}", None, CT_RULE)
        for key in ("mean", "std", "percentile_00_5", "percentile_99_5")
    ),
    ("normalization/1/scheme", "CTNormalization", CT_RULE),
]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        *WRONG_KEYS,
        *WRONG_TYPES,
        *((path, value, f"breaks the rule that {rule}") for path, value, rule in BROKEN_RULES),
    ],
)
def test_what_is_wrong_in_the_manifest_is_said(
    path: str, value: Any, expected: str, folder: Path
) -> None:
    rewrite(folder, put(path, value))
    message = refusal(folder)
    assert message.startswith(f"{folder / MANIFEST}: {expected}")
    assert message.endswith("; export the model again")


def test_one_class_is_refused_and_one_region_is_not(tmp_path: Path) -> None:
    one = dataclasses.replace(
        CONFIG, labels=("lesion",), network=dataclasses.replace(CONFIG.network, heads=1)
    )
    with pytest.raises(ModelError, match="two classes or one region at least"):
        save_manifest(tmp_path, one)
    save_manifest(tmp_path, dataclasses.replace(one, region_values=(1,)))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"members": ()}, "breaks the rule that members is not empty"),
        ({"transpose": (0, 0, 1)}, "breaks the rule that transpose is a permutation"),
        ({"patch_size": (16.0, 32, 32)}, "'patch_size[0]' should be an integer"),
        ({"network": None}, "'network' should be an object"),
        ({"notice": 3}, "'notice' should be text"),
    ],
)
def test_what_cannot_be_read_is_not_written(changes: Json, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        save_manifest(tmp_path, dataclasses.replace(CONFIG, **changes))
    assert expected in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("member", CONFIG.members)
def test_missing_weights(member: Member, folder: Path) -> None:
    file = folder / member.file
    file.unlink()
    expected = f"{file}: is missing; copy it beside model.json or export the model again"
    assert refusal(folder) == expected
    file.mkdir()
    assert refusal(folder) == expected


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_folder_s_name_is_no_weights_file(name: str, folder: Path) -> None:
    rewrite(folder, put("members/0/file", name))
    message = refusal(folder)
    assert FILES in message or "is missing" in message


@pytest.mark.parametrize("member", CONFIG.members)
@pytest.mark.parametrize("content", [b"", WEIGHTS[:-1], WEIGHTS + b"\0", b"O" + WEIGHTS[1:]])
def test_other_weights(content: bytes, member: Member, folder: Path) -> None:
    (folder / member.file).write_bytes(content)
    expected = "SHA-256 differs from model.json; copy or export the model again"
    assert refusal(folder) == f"{folder / member.file}: {expected}"
