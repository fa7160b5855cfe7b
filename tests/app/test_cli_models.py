"""python -m app: one line for whatever is wrong with the model, and what a model says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from app import model as model_module
from app.model import MANIFEST
from tests.app.conftest import Run, names, scan
from tests.app.small_model import write_model
from volumes.files import sha256


def _seal(folder: Path) -> Path:
    """Give the weights as they are now a valid checksum."""
    file = folder / "member_0.safetensors"
    content = json.loads((folder / MANIFEST).read_text())
    content["members"][0]["sha256"] = sha256(file)
    (folder / MANIFEST).write_text(json.dumps(content))
    return file


def _change_weights(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    file = folder / "member_0.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    return _seal(folder)


def no_manifest(folder: Path) -> str:
    (folder / MANIFEST).unlink()
    return f"{folder}: no model.json here; export a model"


def flipped_bit(folder: Path) -> str:
    file = folder / "member_0.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return f"{file}: SHA-256 differs from model.json"


def a_tensor_less(folder: Path) -> str:
    file = _change_weights(folder, lambda w: w.pop("decoder.seg_layers.0.bias"))
    return f"{file}: does not fit the network in model.json"


def not_safetensors(folder: Path) -> str:
    (folder / "member_0.safetensors").write_bytes(b"something else")
    return f"{_seal(folder)}: "


@pytest.mark.parametrize("damage", [no_manifest, flipped_bit, a_tensor_less, not_safetensors])
def test_a_broken_model_is_one_line(
    damage: Callable[[Path], str], tmp_path: Path, run: Run
) -> None:
    """What can be wrong with model.json is in test_model.py."""
    folder = write_model(tmp_path / "model")
    start = damage(folder)
    code, out, err = run(folder, scan(tmp_path / "X.nii.gz"), tmp_path / "out")
    assert (code, out) == (1, [])
    (line,) = err
    assert line.startswith(f"error: {start}")
    assert not list((tmp_path / "out").glob("*"))


def test_weights_that_are_not_finite(tmp_path: Path, run: Run) -> None:
    folder = write_model(tmp_path / "model")
    _change_weights(folder, lambda w: w["decoder.seg_layers.0.bias"].fill_(np.nan))
    source = scan(tmp_path / "X.nii.gz")
    code, _, err = run(folder, source, tmp_path / "out")
    assert code == 1
    (line,) = err
    assert line.startswith(f"error: {source}: the network gave logits that are not finite")
    assert names(tmp_path / "out") == []


def test_weights_folder(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights"
    monkeypatch.setattr(model_module, "WEIGHTS", weights)
    given = scan(tmp_path / "X.nii.gz"), tmp_path / "out"
    code, _, err = run(None, *given)
    assert (code, len(err)) == (1, 1)
    assert f"error: {weights}: expected one model, found none" in err[0]
    write_model(weights / "one", name="one")
    (weights / "no model").mkdir()
    code, out, err = run(None, *given)
    assert (code, err) == (0, [])
    assert out[0].startswith("model one: ")
    write_model(weights / "two", name="two")
    code, out, err = run(None, *given)
    assert (code, out) == (1, [])
    assert err == [
        f"error: {weights}: expected one model, found one, two; choose one with --model, or write"
        f" its name into {weights}/default"
    ]
    assert run("two", *given)[0] == 0
    default = weights / "default"
    default.write_text("one\n")
    code, out, err = run(None, *given)
    assert (code, err) == (0, [])
    assert out[0].startswith("model one: ")
    default.write_text("three\n")
    code, out, err = run(None, *given)
    assert (code, out) == (1, [])
    assert err == [f"error: {default}: names three, which is no model beside it; mend that"]


@pytest.mark.parametrize(
    ("dtype", "arguments", "warns"),
    [
        ("float16", ["--exact"], True),
        ("float16", [], False),
        ("float32", ["--exact"], False),
    ],
)
def test_exact_warns_about_rounded_weights(
    dtype: str, arguments: list[str], warns: bool, tmp_path: Path, run: Run
) -> None:
    folder = write_model(tmp_path / "half", dtype=dtype)
    source = scan(tmp_path / "X.nii.gz")
    code, out, err = run(folder, source, tmp_path / "out", *arguments)
    assert code == 0
    assert [("stored as float16" in line) for line in err] == [True] * warns
    assert (", exact, float32 on cpu" in out[0]) == bool(arguments)


def test_the_notice_of_a_model_is_said_once(tmp_path: Path, run: Run) -> None:
    folder = write_model(tmp_path / "model", notice="not for children")
    for name in "ab":
        scan(tmp_path / "in" / f"{name}.nii.gz")
    code, _, err = run(folder, tmp_path / "in", tmp_path / "out")
    assert code == 0
    assert err == ["warning: model tiny: not for children"]
