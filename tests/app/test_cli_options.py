"""python -m app: what --exact, --tta, --step-size and --device do, and what a start imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app import __main__ as command
from app import loading
from app.exact import mean_logits
from app.image import read_image
from app.model import Normalization
from app.networks import UNet
from app.predict import Options
from tests.app.at_work import means, noise, predictor
from tests.app.conftest import NEEDS_BFLOAT16, Run, mask, python
from tests.app.small_model import NETWORK, write_model
from tests.nnunet_models import ROOT, smooth_noise, write_scan

Array = NDArray[Any]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scans") / "X.nii.gz"
    return write_scan(file, smooth_noise((14, 40, 36), 0), (4.0, 1.2, 1.3))


def segment(model: Path, scan: Path, target: Path, *options: str) -> Array:
    arguments = ["--model", model, "--input", scan, "--output", target, "--device", "cpu", *options]
    assert command.main([str(a) for a in arguments]) == 0
    return mask(target)


def disagreement(a: Array, b: Array) -> float:
    return float((a != b).mean())


@pytest.mark.parametrize(
    ("bfloat16", "most"), [(False, 0.004), pytest.param(True, 0.012, marks=NEEDS_BFLOAT16)]
)
def test_default_and_exact_agree(
    bfloat16: bool,
    most: float,
    model: Path,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In float32 what is left is nnU-Net's own rounding to float16; measured: 0.15 %.

    It sums under weights that have few bits left at the corners of a patch; and the logits of
    random weights cross zero everywhere, so more voxels are undecided than in a trained model.
    bfloat16 has eight bits in the convolutions; measured: 0.4 %.
    """
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: bfloat16)
    default = segment(model, scan, tmp_path / "default.nii.gz")
    exact = segment(model, scan, tmp_path / "exact.nii.gz", "--exact")
    assert 0.1 < exact.mean() < 0.9
    assert 0 < disagreement(default, exact) < most


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ("background", "a", "b"), "network": replace(NETWORK, heads=3)},
        {"labels": ("whole", "core"), "region_values": (1, 2)},
        {"network": replace(NETWORK, name="ResidualEncoderUNet", encoder_blocks=(1, 2))},
        {"transpose": (2, 0, 1), "spacing": (1.5, 3.0, 1.5)},
        {"members": 2},
    ],
    ids=["three classes", "regions", "residual", "transposed", "ensemble"],
)
def test_kinds_of_models(
    changes: dict[str, Any], scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "cpu_has_bfloat16", lambda: False)
    folder = write_model(tmp_path / "model", **changes)
    default = segment(folder, scan, tmp_path / "default.nii.gz")
    exact = segment(folder, scan, tmp_path / "exact.nii.gz", "--exact")
    assert disagreement(default, exact) < 0.005
    assert np.unique(exact).tolist() == ([0, 1, 2] if "labels" in changes else [0, 1])


def test_an_ensemble_is_the_mean_of_the_logits(tmp_path: Path) -> None:
    """When exact, in the precision of nnU-Net's sums; test_streamed_masks.py has the stream's."""
    volume = noise(1, 10, 20, 18)

    def logits(name: str, **given: int) -> torch.Tensor:
        there = predictor(tmp_path / name, Options(torch.device("cpu"), exact=True), **given)
        with torch.inference_mode():
            return mean_logits(volume, there.config, there.stages[0].heads, means(there))

    alone = [logits(f"seed {seed}", seed=seed) for seed in (0, 1)]
    assert not torch.equal(*alone)
    expected = (alone[0] + alone[1]) / 2
    mean = logits("pair", members=2)
    assert mean.dtype == torch.float16
    assert mean.shape == (2, 10, 20, 18)
    assert torch.equal(mean, expected)


def passes(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Collects the shapes that go through the network."""
    seen: list[torch.Size] = []
    forward = UNet.forward

    def counted(network: UNet, x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape)
        return forward(network, x)

    monkeypatch.setattr(UNet, "forward", counted)
    return seen


def test_tta_runs_every_mirror_image(
    model: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = passes(monkeypatch)
    plain = segment(model, scan, tmp_path / "plain.nii.gz")
    windows = len(seen)
    mirrored = segment(model, scan, tmp_path / "tta.nii.gz", "--tta")
    assert len(seen) == (1 + 8) * windows
    assert 0 < disagreement(plain, mirrored) < 0.5


def test_tta_of_a_model_trained_without_mirroring(
    scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / "model", mirror_axes=())
    plain = segment(folder, scan, tmp_path / "plain.nii.gz")
    assert capsys.readouterr().err == ""
    assert np.array_equal(segment(folder, scan, tmp_path / "tta.nii.gz", "--tta"), plain)
    warning = "warning: model tiny: trained without mirroring, --tta does nothing\n"
    assert capsys.readouterr().err == warning


def test_step_size(
    model: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(19, 32, 31) voxels at 3, 1.5, 1.5 mm in patches of 8, 16, 16."""
    seen = passes(monkeypatch)
    for step, windows in ((1.0, 3 * 2 * 2), (0.5, 4 * 3 * 3)):
        seen.clear()
        segment(model, scan, tmp_path / "mask.nii.gz", "--step-size", str(step))
        assert len(seen) == windows
        assert set(seen) == {(1, 1, 8, 16, 16)}


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu(model: Path, scan: Path, tmp_path: Path, run: Run) -> None:
    code, out, err = run(model, scan, tmp_path / "out", "--device", "cuda")
    assert (code, out) == (1, [])
    (line,) = err
    assert line.startswith("error: --device cuda: no usable NVIDIA GPU")
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.usefixtures("no_gpu")
def test_a_run_on_the_cpu_that_nobody_asked_for_is_said(
    model: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", model, "--input", scan, "--output", tmp_path / "out"]
    assert command.main([str(a) for a in arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("warning: no usable NVIDIA GPU found")
    assert len(captured.err.splitlines()) == 1


IMPORTS = """
import json, sys
before = set(sys.modules)
from app.__main__ import main
code = main(sys.argv[1:])
new = {name.partition(".")[0] for name in set(sys.modules) - before - {"__mp_main__"}}
print(json.dumps([code, sorted(new - set(sys.stdlib_module_names))]))
"""
# What the app asks for, and what torch imports for itself (pynvml: only where it is installed).
IMPORTED = {
    "app",
    "isal",
    "numpy",
    "safetensors",
    "torch",
    "torchgen",
    "typing_extensions",
    "volumes",
}
TRIED_BY_TORCH = {"pynvml"}


def test_a_run_on_nifti_imports_little(model: Path, scan: Path, tmp_path: Path) -> None:
    arguments = ["--model", model, "--device", "cpu", "--input", scan, "--output", tmp_path]
    done = python("-c", IMPORTS, *arguments)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert (tmp_path / "X.nii.gz").exists()
    assert set(modules) - TRIED_BY_TORCH == IMPORTED


def test_the_air_around_a_body_is_not_looked_at(model: Path, tmp_path: Path) -> None:
    """The mask is that of a scan cropped to the body, in its place."""
    body = np.random.default_rng(0).integers(-100, 300, (20, 40, 36), dtype=np.int16)
    margins = ((2, 1), (9, 4), (3, 12))
    in_air = np.pad(body, margins, constant_values=-1000)
    in_air[0, 0, :5] = -600  # foam
    masks = {}
    for name, voxels in {"body": body, "in_air": in_air}.items():
        scan = write_scan(tmp_path / f"{name}.nii.gz", voxels, (3.0, 2.0, 2.0))
        output = tmp_path / f"{name}_mask.nii.gz"
        masks[name] = segment(model, scan, output, "--crop-to-body")
    assert 0 < masks["body"].sum() < masks["body"].size
    np.testing.assert_array_equal(masks["in_air"], np.pad(masks["body"], margins))


def test_what_is_not_ct_has_no_air(tmp_path: Path, scan: Path, run: Run) -> None:
    normalization = (Normalization("ZScoreNormalization", use_mask=False),)
    model = write_model(tmp_path / "mr", normalization=normalization)
    code, _, (line,) = run(model, scan, tmp_path / "out", "--crop-to-body")
    assert code == 1
    assert "leave out --crop-to-body" in line


def test_wrong_arguments_do_not_wait_for_torch() -> None:
    check = "import sys, app.__main__; sys.exit('torch' in sys.modules)"
    assert python("-c", check).returncode == 0


def test_python_m_app_leaves_with_the_code_of_main(tmp_path: Path) -> None:
    arguments = ["--model", tmp_path, "--input", tmp_path, "--output", tmp_path]
    done = python("-m", "app", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path}: no model.json here")


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_nobody_has_to_read_what_it_prints(
    streams: str, model: Path, scan: Path, tmp_path: Path
) -> None:
    app = [sys.executable, "-m", "app", "--device", "cpu"]
    arguments = [*app, "--model", model, "--input", scan, "--output", tmp_path / "X.nii.gz"]
    closed = ["sh", "-c", f'exec "$@" {streams}', "sh", *(str(a) for a in arguments)]
    assert subprocess.run(closed, cwd=ROOT, check=False).returncode == 0
    assert read_image(tmp_path / "X.nii.gz").voxels.shape == read_image(scan).voxels.shape
