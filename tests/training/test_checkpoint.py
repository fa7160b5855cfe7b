from __future__ import annotations

import builtins
import os
import pickle
import re
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.trained_folder import NETWORK
from training import random_weights
from training.checkpoint import Checkpoint, inference_weights, load_checkpoint
from training.errors import TrainingError
from training.random_weights import FINAL, Weights, as_nnunet_stores


def refusal(file: Path) -> str:
    with pytest.raises(TrainingError) as caught:
        load_checkpoint(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message


def checkpoint(weights: Any, **more: Any) -> Any:
    """The content of a checkpoint file; ``more`` replaces entries."""
    return random_weights.checkpoint(weights, "3d_fullres") | more


def saved(folder: Path, content: Any, **how: Any) -> Path:
    torch.save(content, folder / FINAL, **how)
    return folder / FINAL


def loaded(weights: Weights) -> Checkpoint:
    return Checkpoint(Path("fold_0") / FINAL, weights, "nnUNetTrainer", "3d_fullres", (), 1)


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_inference_needs(zipped: bool, tmp_path: Path) -> None:
    """PyTorch's present file format and the one before 1.6."""
    weights = OrderedDict(as_nnunet_stores(random_weights.random_weights(NETWORK, seed=0), NETWORK))
    file = saved(tmp_path, checkpoint(weights), _use_new_zipfile_serialization=zipped)
    found = load_checkpoint(file)
    assert (found.file, found.trainer, found.configuration) == (file, "nnUNetTrainer", "3d_fullres")
    assert (found.mirror_axes, found.epoch) == ((0, 1, 2), 7)
    assert found.weights.keys() == weights.keys()
    assert all(torch.equal(found.weights[k], v) for k, v in weights.items())


@pytest.mark.parametrize(
    ("stored", "expected"),
    [((0, 1, 2), (0, 1, 2)), ([0, 1], (0, 1)), ((2,), (2,)), ((), ()), (None, ())],
)
def test_mirror_axes(stored: Any, expected: tuple[int, ...], tmp_path: Path) -> None:
    content = checkpoint({}, inference_allowed_mirroring_axes=stored)
    assert load_checkpoint(saved(tmp_path, content)).mirror_axes == expected


def test_no_mirror_axes_stored(tmp_path: Path) -> None:
    content = checkpoint({})
    del content["inference_allowed_mirroring_axes"]
    assert load_checkpoint(saved(tmp_path, content)).mirror_axes == ()


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_scalars_of_both_numpy_generations(module: bytes, tmp_path: Path) -> None:
    """NumPy 2 renamed the function that rebuilds a scalar; checkpoints have either name."""
    file = saved(tmp_path, checkpoint({}), _use_new_zipfile_serialization=False)
    raw = file.read_bytes()
    assert b"numpy._core.multiarray" in raw
    file.write_bytes(raw.replace(b"numpy._core.multiarray", module))
    assert load_checkpoint(file).epoch == 7


class Malicious:
    """Runs something when it is unpickled, as any pickle can."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


PLACES: dict[str, Callable[[Any], Any]] = {
    "whole file": lambda evil: evil,
    "log": lambda evil: checkpoint({}, logging={"mean_fg_dice": [evil]}),
    "weights": lambda evil: checkpoint({"encoder.weight": evil}),
    "trainer": lambda evil: checkpoint({}, trainer_name=evil),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_code_is_refused_and_not_run(place: str, zipped: bool, tmp_path: Path) -> None:
    trace = tmp_path / "it_ran"
    evil = Malicious(os.system, f"touch '{trace}'")
    file = saved(tmp_path, PLACES[place](evil), _use_new_zipfile_serialization=zipped)
    assert f"it would run {os.system.__module__}.system" in refusal(file)
    assert not trace.exists()
    torch.load(file, weights_only=False)
    assert trace.exists()  # so the file was live, and the refusal is what stopped it


@pytest.mark.parametrize(
    ("function", "name"),
    [(builtins.exec, "exec"), (builtins.eval, "eval"), (Path, "Path"), (np.zeros, "zeros")],
)
def test_the_refused_global_is_named(
    function: Callable[..., object], name: str, tmp_path: Path
) -> None:
    file = saved(tmp_path, checkpoint({}, logging=Malicious(function, "0")))
    message = refusal(file)
    assert "it would run " in message
    assert name in message
    assert "nnU-Net's own trainer" in message


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "it_ran"
    (tmp_path / FINAL).write_bytes(pickle.dumps(Malicious(os.system, f"touch '{trace}'")))
    refusal(tmp_path / FINAL)
    assert not trace.exists()


@pytest.mark.parametrize("epoch", [{}, {"current_epoch": np.int64(7)}], ids=repr)
def test_stripped_for_sharing(epoch: Any, tmp_path: Path) -> None:
    """What nnU-Net's predictor reads is enough."""
    needed = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")
    content = {k: v for k, v in checkpoint({"a": torch.ones(1)}).items() if k in needed}
    found = load_checkpoint(saved(tmp_path, content | epoch))
    assert (found.trainer, found.configuration, found.epoch) == (
        "nnUNetTrainer",
        "3d_fullres",
        None,
    )
    assert found.weights.keys() == {"a"}


LOGGED = [
    np.int32(1),
    np.True_,
    np.float16(0.5),
    np.str_("a"),
    np.datetime64("2026-01-01"),
    np.arange(6).reshape(2, 3),
    np.ones((2, 3), ">f4", order="F"),
    np.array([1, "a", None], object),
    np.zeros(2, [("dice", "f4")]),
    Path("runs"),
    PureWindowsPath("C:/runs"),
    Namespace(lr=0.01, folder=Path("runs")),
    datetime(2026, 1, 1),
]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("value", LOGGED, ids=repr)
def test_harmless_values_are_passed_over(value: Any, zipped: bool, tmp_path: Path) -> None:
    content = checkpoint({}, logging={"x": [value]}, init_args={"configuration": "a", "x": value})
    file = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    assert load_checkpoint(file).configuration == "a"


@pytest.mark.parametrize("name", ["pathlib._local", "pathlib"])
def test_paths_of_both_python_generations(name: str, tmp_path: Path) -> None:
    """Python 3.13 alone says pathlib._local; a Windows machine's paths cannot be made here."""
    file = saved(
        tmp_path, checkpoint({}, logging=[Path("x")]), _use_new_zipfile_serialization=False
    )
    stored = re.sub(
        rb"cpathlib(\._local)?\nPosixPath\n",
        b"c%s\nWindowsPath\n" % name.encode(),
        file.read_bytes(),
    )
    assert stored != file.read_bytes()
    file.write_bytes(stored)
    assert load_checkpoint(file).epoch == 7


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / FINAL).mkdir()
    assert "cannot be read" in refusal(tmp_path / FINAL)


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file(kept: float, tmp_path: Path) -> None:
    file = saved(tmp_path, checkpoint(random_weights.random_weights(NETWORK, seed=0)))
    raw = file.read_bytes()
    file.write_bytes(raw[: int(len(raw) * kept)])
    assert "cannot be read" in refusal(file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path) -> None:
    """PyTorch raises almost anything for them: UnicodeDecodeError, IndexError, ..."""
    file = saved(tmp_path, checkpoint({"a": torch.ones(2)}), _use_new_zipfile_serialization=False)
    raw = np.frombuffer(file.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(200):
        damaged = raw.copy()
        damaged[rng.integers(len(raw), size=3)] = rng.integers(256, size=3)
        file.write_bytes(damaged.tobytes())
        try:
            load_checkpoint(file)
        except TrainingError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


@pytest.mark.parametrize(
    "content",
    [[1, 2], "text", 3, None, torch.zeros(3), {}, {"state_dict": {}}, {"network_weights": [1]}],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_not_a_checkpoint_of_nnunet(content: Any, tmp_path: Path) -> None:
    assert "is no nnU-Net v2 checkpoint" in refusal(saved(tmp_path, content))


@pytest.mark.parametrize("key", ["network_weights", "trainer_name", "init_args"])
def test_missing_key_is_named(key: str, tmp_path: Path) -> None:
    content = checkpoint({})
    del content[key]
    assert f"is no nnU-Net v2 checkpoint (KeyError('{key}'))" in refusal(saved(tmp_path, content))


def test_missing_configuration_is_named(tmp_path: Path) -> None:
    assert "'configuration'" in refusal(saved(tmp_path, checkpoint({}, init_args={"fold": 0})))


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_parameters_under_the_app_s_names(prefix: str) -> None:
    weights = random_weights.random_weights(NETWORK, seed=0)
    stored = {f"{prefix}{k}": v for k, v in as_nnunet_stores(weights, NETWORK).items()}
    assert len(stored) > 2 * len(weights)  # else there are no spare names to drop
    found = inference_weights(loaded(stored), NETWORK)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[k], v) for k, v in weights.items())


def test_parameters_are_contiguous() -> None:
    """The format of the weights file refuses others."""
    weights = random_weights.random_weights(NETWORK, seed=0)
    key = "encoder.stages.1.0.convs.0.conv.weight"
    stored = weights | {key: weights[key].to(memory_format=torch.channels_last_3d)}
    assert not stored[key].is_contiguous()
    found = inference_weights(loaded(stored), NETWORK)
    assert found[key].is_contiguous()
    assert torch.equal(found[key], weights[key])


CONV = "encoder.stages.0.0.convs.0.conv.weight"
HEAD = "decoder.seg_layers.1.weight"


def _without(*keys: str) -> Callable[[Weights], Weights]:
    return lambda weights: {k: v for k, v in weights.items() if k not in keys}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_without(CONV), f"lacks {CONV} (and 0 more)"),
        (_without(CONV, "decoder.transpconvs.1.bias"), "lacks decoder.transpconvs.1.bias (and 1"),
        (_without(HEAD), f"lacks {HEAD}"),
        (lambda w: w | {"encoder.extra": torch.ones(1)}, "has unexpected encoder.extra (and 0"),
        (lambda w: w | {"decoder.stages.9.bias": torch.ones(1)}, "has unexpected decoder.stages.9"),
        (lambda w: w | {CONV: torch.ones(6, 1, 3, 3, 3)}, f"misshapes {CONV} (and 0 more)"),
        (lambda w: w | {HEAD: torch.ones(3, 6, 1, 1, 1)}, f"misshapes {HEAD}"),
    ],
)
def test_other_parameters_are_named(change: Callable[[Weights], Weights], problem: str) -> None:
    weights = change(as_nnunet_stores(random_weights.random_weights(NETWORK, seed=0), NETWORK))
    with pytest.raises(TrainingError) as caught:
        inference_weights(loaded(weights), NETWORK)
    message = str(caught.value)
    assert problem in message
    assert message.startswith(str(Path("fold_0") / FINAL))
    assert "trainer nnUNetTrainer may have changed it" in message
    assert "\n" not in message


def test_batch_norm_is_refused() -> None:
    """nnUNetTrainerBN leaves the plans as they are and trains another network."""
    weights = as_nnunet_stores(random_weights.random_weights(NETWORK, seed=0), NETWORK)
    weights["encoder.stages.0.0.convs.0.norm.running_mean"] = torch.zeros(6)
    with pytest.raises(TrainingError, match=r"has unexpected .*running_mean"):
        inference_weights(loaded(weights), NETWORK)


def test_what_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")
    with zipfile.ZipFile(tmp_path / FINAL, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data/0", bytes(2**24))
    assert "its parts unpack to 16777216 bytes" in refusal(tmp_path / FINAL)
