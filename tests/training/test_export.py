from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.model import MANIFEST, Model, PreviousStage, load_model
from app.networks import build_network
from tests.nnunet_models import Json, dataset, plans
from tests.training.trained_folder import NETWORK, put, write_trained
from training.errors import TrainingError
from training.export import export
from training.random_weights import FINAL, Weights
from training.trained import find_checkpoints

BEST = "checkpoint_best.pth"
ALL_FOLDS = ("0", "1", "2", "10", "all")


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(TrainingError) as caught:
        export(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weights_of(model: Model) -> list[Weights]:
    return [load_file(model.weights_file(m)) for m in model.config.members]


def same(found: Weights, expected: Weights) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in expected.items()
    )


GENUINE = {"3d_tiny": ("PlainConvUNet", (2, 2, 2, 2)), "3d_tinyres": ("ResidualEncoderUNet", None)}


@pytest.mark.parametrize("name", GENUINE)
def test_genuine_trained_folder(name: str, real_data: Path, output: Path) -> None:
    folder = real_data / "nnunet_models" / name
    warnings = export([folder], output, notice="not for use")
    assert len(warnings) == 1
    assert "trainer nnUNetTrainer_micro is not known" in warnings[0]
    model = load_model(output)
    config = model.config
    (member,) = config.members
    network_name, blocks = GENUINE[name]
    assert sorted(f.name for f in output.iterdir()) == ["member_0.safetensors", MANIFEST]
    assert (config.name, config.configuration, config.dataset) == ("model", name, "Dataset901_STS")
    assert (config.trainer, config.plans) == ("nnUNetTrainer_micro", "nnUNetPlans")
    assert (config.channels, config.labels) == (("CT",), ("background", "lesion"))
    assert (config.patch_size, config.mirror_axes) == ((24, 64, 64), (0, 1, 2))
    assert config.spacing == (3.2699999809265137, 0.9765620231628418, 0.9765620231628418)
    assert config.normalization[0].percentile_00_5 == -130.0
    assert config.network.name == network_name
    assert config.network.features == (8, 16, 32, 64)
    assert blocks is None or config.network.encoder_blocks == blocks
    assert (config.dtype, config.notice) == ("float32", "not for use")
    assert member.source == f"{name}/fold_all/{FINAL}, epoch 2"
    digest = hashlib.sha256((output / "member_0.safetensors").read_bytes()).hexdigest()
    assert member.sha256 == digest

    (weights,) = weights_of(model)
    build_network(config.network).load_state_dict(weights, strict=True, assign=True)
    assert not [k for k in weights if "all_modules" in k or k.startswith("decoder.encoder")]
    stored = torch.load(folder / "fold_all" / FINAL, weights_only=False)["network_weights"]
    assert all(torch.equal(weights[k], stored[k]) for k in weights)
    # every tensor of the checkpoint is in the file, but for the heads of deep supervision
    left_out = {v.data_ptr() for v in stored.values()} - {stored[k].data_ptr() for k in weights}
    heads = [f"decoder.seg_layers.{n}.{p}" for n in (0, 1) for p in ("weight", "bias")]
    assert left_out == {stored[k].data_ptr() for k in heads}


def test_genuine_folders_of_two_networks_are_no_ensemble(real_data: Path, output: Path) -> None:
    folders = [real_data / "nnunet_models" / name for name in GENUINE]
    assert "cannot join the ensemble, network is " in refusal(folders, output)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (ALL_FOLDS, ["0", "1", "2", "10"]),
        (("0", "all"), ["0"]),
        (("all",), ["all"]),
        (("3", "3_old", "backup"), ["3"]),
        (("all", "0_old"), ["all"]),
    ],
)
def test_default_folds(present: tuple[str, ...], expected: list[str], tmp_path: Path) -> None:
    for fold in present:
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / FINAL).touch()
    (tmp_path / "fold_4").mkdir()  # its training has not finished
    found = find_checkpoints(tmp_path, FINAL, None)
    assert found == [tmp_path / f"fold_{fold}" / FINAL for fold in expected]


def test_no_folds(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(TrainingError, match=re.escape(f"{folder}: no fold_X/{FINAL} here")):
            find_checkpoints(folder, FINAL, None)


@pytest.mark.parametrize(
    ("folds", "checkpoint", "message"),
    [
        (None, FINAL, f"no fold_X/{FINAL} here, only fold_0/{BEST}, fold_2/{BEST}"),
        (["2", "3"], BEST, f"no fold_3/{BEST} here, only fold_0/{BEST}, fold_2/{BEST}"),
        (["0"], FINAL, f"no fold_0/{FINAL} here, only fold_0/{BEST}, fold_2/{BEST}"),
    ],
)
def test_what_there_is_instead_is_named(
    folds: list[str] | None, checkpoint: str, message: str, tmp_path: Path, output: Path
) -> None:
    write_trained(tmp_path / "trained", folds=("0", "2"), name=BEST)
    found = refusal([tmp_path / "trained"], output, folds, checkpoint)
    assert found == f"{tmp_path / 'trained'}: {message}; choose with --folds and --checkpoint"


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        (None, (0, 1, 2, 3)),
        (["0"], (0,)),
        (["0", "1"], (0, 1)),
        (["2", "0"], (2, 0)),
        (["all"], (4,)),
        (["1", "all"], (1, 4)),
    ],
)
def test_members(
    folds: list[str] | None, expected: tuple[int, ...], tmp_path: Path, output: Path
) -> None:
    folder = tmp_path / "trained"
    written = write_trained(folder, folds=ALL_FOLDS)
    export([folder], output, folds)
    model = load_model(output)
    found = weights_of(model)
    assert len(found) == len(expected)
    for weights, member, number in zip(found, model.config.members, expected, strict=True):
        assert same(weights, written[number])
        assert member.source == f"trained/fold_{ALL_FOLDS[number]}/{FINAL}, epoch 7"


def test_several_folders(tmp_path: Path, output: Path) -> None:
    """Their plans may differ in what inference does not need."""
    one, two = tmp_path / "one", tmp_path / "two"
    first = write_trained(one, folds=("0", "1"))
    other = put(plans(), "configurations/base/batch_size", 9)
    other |= {"dataset_name": "Dataset002_Other", "plans_name": "otherPlans"}
    second = write_trained(two, other, trainer_name="nnUNetTrainerDA5", seed=5)
    assert export([one, two], output) == []
    model = load_model(output)
    pairs = zip(weights_of(model), first + second, strict=True)
    assert all(same(found, written) for found, written in pairs)
    assert [m.source.split("/")[0] for m in model.config.members] == ["one", "one", "two"]
    assert (model.config.dataset, model.config.trainer) == ("Dataset900_Parity", "nnUNetTrainer")


def test_a_folder_named_by_a_dot(
    trained: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    export([Path()], output)
    assert load_model(output).config.members[0].source.startswith("trained/fold_0/")


PROPERTIES = "foreground_intensity_properties_per_channel/0"
ARCH = "configurations/base/architecture/arch_kwargs"
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


@dataclass(frozen=True)
class Other:
    """A second folder, and the field in which it differs from the first."""

    differs: str
    plans_json: Json = dataclasses.field(default_factory=plans)
    dataset_json: Json = dataclasses.field(default_factory=dataset)
    stored: Json = dataclasses.field(default_factory=dict)
    first: Json = dataclasses.field(default_factory=dataset)


DIFFERENT = {
    "patch": Other("patch_size", plans(patch=(24, 32, 32))),
    "spacing": Other("spacing", plans(spacing=(3.0, 1.5, 1.6))),
    "axes": Other("transpose", plans(transpose=(1, 0, 2))),
    "label names": Other("labels", dataset_json=dataset({"background": 0, "tumour": 1})),
    "label order": Other(
        "labels",
        dataset_json=dataset({"background": 0, "a": 2, "b": 1}),
        first=dataset({"background": 0, "a": 1, "b": 2}),
    ),
    "region order": Other(
        "region_values",
        dataset_json=dataset(REGIONS, regions_class_order=[2, 1]),
        first=dataset(REGIONS, regions_class_order=[1, 2]),
    ),
    "scheme": Other("normalization", plans(schemes=("ZScoreNormalization",))),
    "mask": Other("normalization", plans(use_mask=True)),
    "mean": Other("normalization", put(plans(), f"{PROPERTIES}/mean", 35.0)),
    "resampling": Other("resample_data", plans(data="resample_torch_fornnunet")),
    "export": Other("resample_logits", plans(logits="resample_torch_fornnunet")),
    "channel": Other("channels", dataset_json=dataset() | {"channel_names": {"0": "MR"}}),
    "network": Other("network", put(plans(), f"{ARCH}/features_per_stage", 8)),
    "mirroring": Other("mirror_axes", stored={"inference_allowed_mirroring_axes": (0,)}),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_an_ensemble_that_differs_is_refused(name: str, tmp_path: Path, output: Path) -> None:
    other = DIFFERENT[name]
    heads = len(other.first["labels"]) - ("whole" in other.first["labels"])
    network = dataclasses.replace(NETWORK, heads=heads)
    write_trained(tmp_path / "one", dataset_json=other.first, network=network)
    write_trained(tmp_path / "two", other.plans_json, other.dataset_json, **other.stored)
    message = refusal([tmp_path / "one", tmp_path / "two"], output)
    file = tmp_path / "two" / "fold_0" / FINAL
    assert message.startswith(f"{file}: cannot join the ensemble, {other.differs} is ")
    assert message.endswith("give it to --ensemble, which averages probabilities")


def test_folds_of_different_configurations_are_no_ensemble(tmp_path: Path, output: Path) -> None:
    both = plans()
    both["configurations"]["3d_lowres"] = {"inherits_from": "base", "spacing": [4.0, 2.0, 2.0]}
    write_trained(tmp_path / "trained", both, folds=("0", "1"))
    write_trained(tmp_path / "other", both, folds=("1",), configuration="3d_lowres")
    (tmp_path / "other" / "fold_1").rename(tmp_path / "trained" / "fold_2")
    message = refusal([tmp_path / "trained"], output)
    assert f"fold_2/{FINAL}: cannot join the ensemble, spacing is (4.0, 2.0, 2.0) and" in message


def test_a_member_given_twice_is_refused(trained: Path, output: Path) -> None:
    for arguments in ([trained, trained], output), ([trained], output, ["0", "0"]):
        assert "fold_0/checkpoint_final.pth: is given twice" in refusal(*arguments)
    assert not output.exists()


def test_a_model_that_the_app_would_refuse_names_the_trained_folder(
    tmp_path: Path, output: Path
) -> None:
    folder = tmp_path / "odd"
    write_trained(folder, plans(spacing=(0.0, 1.0, 1.0)))
    message = refusal([folder], output)
    assert message == (
        f"{folder / 'plans.json'}: gives a model that breaks the rule that spacing is from 0.001 to"
        " 1000.0 mm"
    )
    assert not output.exists()


def test_another_checkpoint(trained: Path, output: Path) -> None:
    (best,) = write_trained(trained, folds=("2",), name="checkpoint_best.pth", seed=9)
    export([trained], output, checkpoint="checkpoint_best.pth")
    model = load_model(output)
    assert [m.source for m in model.config.members] == [
        "trained/fold_2/checkpoint_best.pth, epoch 7"
    ]
    assert same(weights_of(model)[0], best)


KNOWN = [
    "nnUNetTrainer",
    "nnUNetTrainer_1epoch",
    "nnUNetTrainer_2000epochs",
    "nnUNetTrainerNoMirroring",
    "nnUNetTrainer_250epochs_NoMirroring",
    "nnUNetTrainer_onlyMirror01_DA5",
    "nnUNetTrainerDA5ord0",
    "nnUNetTrainerDiceCELoss_noSmooth",
    "nnUNetTrainerNoDeepSupervision",
    "nnUNetTrainer_warmup",
    "nnUNetTrainerAdanCosAnneal",
    "nnUNetTrainerTopk10LossLS01",
]
UNKNOWN = [
    "nnUNetTrainerBN",
    "nnUNet_Primus_M_Trainer",
    "nnUNetTrainer_mine",
    "nnUNetTrainerMine",
    "MynnUNetTrainer",
    "nnUNetTrainer_epochs",
]


@pytest.mark.parametrize("trainer", [*KNOWN, *UNKNOWN])
def test_only_an_unknown_trainer_is_warned_of(trainer: str, tmp_path: Path, output: Path) -> None:
    write_trained(tmp_path / "trained", trainer_name=trainer)
    warnings = export([tmp_path / "trained"], output)
    assert len(warnings) == (trainer in UNKNOWN)
    assert all(w.startswith(str(tmp_path / "trained" / "fold_0" / FINAL)) for w in warnings)
    assert all(f"trainer {trainer} is not known" in w for w in warnings)
    assert load_model(output).config.trainer == trainer


def test_other_configurations_become_models_below(tmp_path: Path, output: Path) -> None:
    low = plans((5.0, 3.0, 3.0), name="3d_lowres")
    first = write_trained(tmp_path / "full", folds=("0", "1"))
    second = write_trained(tmp_path / "low", low, seed=5, configuration="3d_lowres")
    export([tmp_path / "full"], output, notice="for both", ensemble=[tmp_path / "low"])
    model = load_model(output)
    (other,) = model.others
    assert model.config.ensemble == ("ensemble_1",)
    assert [c.name for c in (model.config, other.config)] == ["model", "model/ensemble_1"]
    assert (other.config.configuration, other.config.spacing) == ("3d_lowres", (5.0, 3.0, 3.0))
    assert (model.config.notice, other.config.notice) == ("for both", None)
    for found, expected in ((model, first), (other, second)):
        assert all(map(same, weights_of(found), expected))
    model.check_weights()


def test_other_labels_cannot_be_averaged(tmp_path: Path, output: Path) -> None:
    write_trained(tmp_path / "full")
    write_trained(tmp_path / "other", dataset_json=dataset({"background": 0, "tumour": 1}))
    message = refusal([tmp_path / "full"], output, ensemble=[tmp_path / "other"])
    assert message == (
        f"{tmp_path / 'full'}: gives a model that has ensemble_1 with labels "
        "('background', 'tumour'), not ('background', 'lesion')"
    )
    assert not output.exists()


def cascade(folder: Path, low: str = "nnUNetTrainer__nnUNetPlans__3d_lowres") -> Path:
    """A trained cascade, and beside it, if so named, its first stage."""
    labels = dataset({"background": "0", "b": "2", "a": "1"})
    settings = plans((5.0, 3.0, 3.0), name="3d_lowres")
    three = dataclasses.replace(NETWORK, heads=3)
    write_trained(folder / low, settings, labels, network=three, configuration="3d_lowres")
    full = plans(name="3d_cascade_fullres")
    full["configurations"]["3d_cascade_fullres"]["previous_stage"] = "3d_lowres"
    second = folder / "nnUNetTrainer__nnUNetPlans__3d_cascade_fullres"
    deeper = dataclasses.replace(three, input_channels=3)
    write_trained(
        second, full, labels, ("0", "1"), deeper, seed=5, configuration="3d_cascade_fullres"
    )
    return second


def test_a_cascade_brings_the_stage_before_it(tmp_path: Path, output: Path) -> None:
    export([cascade(tmp_path)], output)
    model = load_model(output)
    assert model.previous is not None
    assert model.config.previous_stage == PreviousStage("3d_lowres", (1, 2), False)
    assert [s.config.name for s in model.stages()] == ["model/3d_lowres", "model"]
    assert [len(s.config.members) for s in model.stages()] == [1, 2]
    assert model.previous.folder == output / "3d_lowres"
    model.check_weights()


def test_a_cascade_s_first_stage_elsewhere(tmp_path: Path, output: Path) -> None:
    folder = cascade(tmp_path, "low")
    message = refusal([folder], output)
    assert message == (
        f"{folder}: is a cascade after 3d_lowres, whose folder "
        "nnUNetTrainer__nnUNetPlans__3d_lowres is not beside it; give it with --previous-stage"
    )
    assert not output.exists()
    export([folder], output, previous=tmp_path / "low")
    assert next(load_model(output).stages()).config.configuration == "3d_lowres"


def test_another_configuration_is_no_first_stage(tmp_path: Path, output: Path) -> None:
    folder = cascade(tmp_path, "low")
    write_trained(tmp_path / "full")
    message = refusal([folder], output, previous=tmp_path / "full")
    expected = f"{tmp_path / 'full' / 'fold_0' / FINAL}: is of 3d_fullres; the cascade in {folder}"
    assert message == f"{expected} needs 3d_lowres"
