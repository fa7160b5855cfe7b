"""What the exporter leaves on disk, prints and returns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.model import MANIFEST, ModelError, load_model
from tests.nnunet_models import ROOT, plans
from tests.training.trained_folder import write_trained
from training.errors import TrainingError
from training.export import export, main
from training.random_weights import FINAL, Weights

CONV = "encoder.stages.0.0.convs.0.conv.weight"


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(TrainingError) as caught:
        export(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def setter(key: str, value: float) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        weights[key].view(-1)[-1] = value

    return change


def weights_in(folder: Path) -> Weights:
    """The only member's parameters, of a model that loads."""
    model = load_model(folder)
    (member,) = model.config.members
    weights: Weights = load_file(model.weights_file(member))
    return weights


@pytest.mark.parametrize(
    ("value", "dtype", "accepted"),
    [
        (float("nan"), "float32", False),
        (float("inf"), "float32", False),
        (float("nan"), "float16", False),
        (70000.0, "float16", False),
        (70000.0, "float32", True),
        (65504.0, "float16", True),  # the largest of them
    ],
)
def test_weights_that_are_not_finite(
    value: float, dtype: str, accepted: bool, tmp_path: Path, output: Path
) -> None:
    write_trained(tmp_path / "trained", change=setter(CONV, value))
    if accepted:
        export([tmp_path / "trained"], output, dtype=dtype)
        assert weights_in(output)[CONV].view(-1)[-1] == value
        return
    message = refusal([tmp_path / "trained"], output, dtype=dtype)
    assert f"fold_0/{FINAL}: {CONV} is not finite as {dtype}" in message
    assert message.endswith("did the training diverge? Else export with --dtype float32")


def test_float16_halves_the_file(tmp_path: Path, output: Path) -> None:
    (written,) = write_trained(tmp_path / "trained")
    export([tmp_path / "trained"], output)
    export([tmp_path / "trained"], output.with_name("half"), dtype="float16")
    half = output.with_name("half")
    assert [load_model(f).config.dtype for f in (output, half)] == ["float32", "float16"]
    found = weights_in(half)
    assert found.keys() == written.keys()
    assert all(torch.equal(found[k], v.half()) for k, v in written.items())
    assert all(v.dtype == torch.float16 for v in found.values())
    full_size, half_size = ((f / "member_0.safetensors").stat().st_size for f in (output, half))
    assert full_size - half_size == pytest.approx(
        2 * sum(v.numel() for v in written.values()), abs=64
    )


def test_notice(trained: Path, output: Path) -> None:
    export([trained], output, notice="not for babies\n(never shown any)")
    assert load_model(output).config.notice == "not for babies\n(never shown any)"
    export([trained], output.with_name("silent"))
    assert load_model(output.with_name("silent")).config.notice is None


def test_every_file_can_be_read_by_any_user(trained: Path, output: Path) -> None:
    """A container may run as one who did not export the model."""
    export([trained], output)
    assert {f.name: oct(f.stat().st_mode & 0o444) for f in output.iterdir()} == dict.fromkeys(
        ("member_0.safetensors", MANIFEST), "0o444"
    )


def test_missing_parents_are_made(trained: Path, tmp_path: Path) -> None:
    export([trained], tmp_path / "a" / "b" / "model")
    assert load_model(tmp_path / "a" / "b" / "model").config.name == "model"


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_existing_output_is_left_alone(kind: str, trained: Path, output: Path) -> None:
    if kind != "file":
        output.mkdir()
    held = output if kind == "file" else output / "mine.txt"
    if kind != "empty folder":
        held.write_text("precious")
    assert refusal([trained], output) == f"{output}: exists; remove it or choose another name"
    assert list(output.parent.iterdir()) == [output]
    assert kind == "empty folder" or held.read_text() == "precious"
    assert kind != "empty folder" or list(output.iterdir()) == []


def _second_fold_diverged(folder: Path) -> None:
    write_trained(folder, folds=("1",), change=setter(CONV, float("nan")))


def _second_fold_truncated(folder: Path) -> None:
    write_trained(folder, folds=("1",))
    file = folder / "fold_1" / FINAL
    file.write_bytes(file.read_bytes()[:-100])


def _transpose_is_none(folder: Path) -> None:
    write_trained(folder, plans() | {"transpose_forward": [0, 0, 1]})


def _file_for_folder(folder: Path) -> None:
    (folder.parent / "weights").rmdir()
    (folder.parent / "weights").touch()


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *code.split(maxsplit=1), *(str(a) for a in arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


KILLED_AT_THE_END = """-c
import os, signal, sys
from training import export
export.save_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
export.main(sys.argv[1:])
"""


def test_killed_half_way(trained: Path, output: Path) -> None:
    done = run(KILLED_AT_THE_END, trained, "--output", output)
    assert done.returncode == -signal.SIGKILL
    (unfinished,) = output.parent.iterdir()  # weights were being written
    assert (unfinished / "member_0.safetensors").stat().st_size > 0
    assert unfinished.name.startswith(".")
    assert not (unfinished / MANIFEST).exists()
    with pytest.raises(ModelError):
        load_model(output)
    export([trained], output)  # the next attempt takes the remains away
    assert list(output.parent.iterdir()) == [output]
    assert sorted(f.name for f in output.iterdir()) == ["member_0.safetensors", MANIFEST]


WITHOUT_NNUNET = """-c
import sys
from training.export import main
code = main(sys.argv[1:])
foreign = ("nnunetv2", "dynamic_network_architectures", "batchgenerators")
sys.exit(code or str([m for m in sys.modules if m.startswith(foreign)]).strip("[]") or 0)
"""


def test_nnunet_is_not_imported(trained: Path, output: Path) -> None:
    done = run(WITHOUT_NNUNET, trained, "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    load_model(output)


def test_from_the_command_line(tmp_path: Path, output: Path) -> None:
    """The module runs as documented; a bad input gives one line and no traceback."""
    done = run("-m training.export", tmp_path / "missing", "--output", output)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'missing'}: no fold_X/{FINAL} here")
    assert done.stderr.count("\n") == 1


def test_options(
    trained: Path, tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    for seed, folder in enumerate((trained, other)):
        write_trained(folder, folds=("0", "1", "all"), name="checkpoint_best.pth", seed=seed)
    arguments = f"{trained} --output {output} --folds 1 all --add {other} --dtype float16"
    code = main([*arguments.split(), "--checkpoint", "checkpoint_best.pth", "--notice", "a b"])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    files = [f"member_{n}.safetensors" for n in range(4)]
    assert printed.out == f"{output}: {', '.join([*files, MANIFEST])}\n"
    config = load_model(output).config
    assert (config.dtype, config.notice) == ("float16", "a b")
    sources = [m.source.removesuffix("/checkpoint_best.pth, epoch 7") for m in config.members]
    assert sources == ["trained/fold_1", "trained/fold_all", "other/fold_1", "other/fold_all"]


def test_warnings_do_not_fail(
    tmp_path: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trained(tmp_path / "trained", folds=("0", "1"), trainer_name="nnUNetTrainer_mine")
    assert main([str(tmp_path / "trained"), "--output", str(output)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("warning: ") for line in lines)


BAD_INPUT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no plans": (lambda f: (f / "plans.json").unlink(), "plans.json: is missing"),
    "no dataset": (lambda f: (f / "dataset.json").unlink(), "dataset.json: is missing"),
    "no checkpoint": (lambda f: (f / "fold_0" / FINAL).unlink(), f"no fold_X/{FINAL} here"),
    "broken plans": (lambda f: (f / "plans.json").write_text("{"), "plans.json: cannot be read"),
    "empty checkpoint": (lambda f: (f / "fold_0" / FINAL).write_bytes(b""), "cannot be read"),
    "other plans": (
        lambda f: write_trained(f, plans(residual=True)),
        f"fold_0/{FINAL}: lacks encoder.stages.0.blocks.0.conv1.conv.bias (and ",
    ),
    "impossible plans": (_transpose_is_none, "transpose is a permutation of 0, 1, 2"),
    "second fold diverged": (_second_fold_diverged, f"fold_1/{FINAL}: {CONV} is not finite"),
    "second fold truncated": (_second_fold_truncated, f"fold_1/{FINAL}: cannot be read"),
    "output below a file": (_file_for_folder, "Not a directory"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_gives_one_line_and_leaves_nothing_behind(
    name: str, trained: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, expected = BAD_INPUT[name]
    spoil(trained)
    assert main([str(trained), "--output", str(output)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert expected in printed.err
    assert list(output.parent.glob("*")) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("folder", "required: --output"),
        ("--output model", "required: TRAINED_FOLDER"),
        ("folder --output model --dtype float8", "invalid choice: 'float8'"),
        ("folder --output model --folds", "expected at least one argument"),
    ],
)
def test_usage(arguments: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    assert expected in capsys.readouterr().err
