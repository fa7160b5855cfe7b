"""python -m app: --vram-budget and --time-budget, from the arguments to what is said."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app import loading, predict, run
from app.predict import Predictor
from tests.app.conftest import Run, names
from tests.nnunet_models import smooth_noise, write_scan

MASKS = ["X.nii.gz", "Y.nii.gz"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in MASKS:
        write_scan(folder / name, smooth_noise((14, 40, 36), 0), (4.0, 1.2, 1.3))
    return folder


Call = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def call(run: Run, model: Path, scans: Path, tmp_path: Path) -> Call:
    target = tmp_path / "out"
    return lambda *more: run(model, scans, target, *more)


def test_a_cpu_has_no_vram(call: Call) -> None:
    code, out, err = call("--vram-budget", "1")
    assert code == 0
    assert err == ["warning: --vram-budget does nothing on the CPU"]
    assert not any("MiB" in line for line in out)


@pytest.fixture
def _cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line takes the CPU for a GPU."""
    options = predict.Options

    def on_cpu(device: torch.device, *rest: Any) -> predict.Options:
        return options(torch.device("cpu"), *rest)

    monkeypatch.setattr(loading, "find_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(predict, "Options", on_cpu)


@pytest.mark.usefixtures("_cuda")
@pytest.mark.parametrize(("mib", "place"), [(None, "device"), (4096, "device"), (380, "host")])
def test_the_plan_is_printed(call: Call, mib: int | None, place: str) -> None:
    code, out, err = call(*(["--vram-budget", str(mib)] if mib else []))
    assert (code, err) == (0, [])
    plans = [line for line in out if "per batch" in line]
    for name, plan in zip("XY", plans, strict=True):
        start = f"{name}: 16 windows per batch, slabs of 16 sections, buffers on the {place}, "
        assert plan.startswith(f"{start}at most ")
        assert int(plan.split()[-2]) <= (mib or 4096)


@pytest.mark.usefixtures("_cuda")
def test_what_cannot_fit_is_one_line(call: Call, tmp_path: Path) -> None:
    code, out, err = call("--vram-budget", "300")
    assert (code, out) == (1, [])
    (line,) = err
    assert line.startswith("error: --vram-budget 300: one window needs ")
    assert names(tmp_path / "out") == []


def test_the_first_case_counts_from_process_start(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float | None] = []
    original = Predictor.write

    def noted(self: Predictor, *args: Any) -> dict[str, float]:
        deadline = args[3]
        left.append(None if deadline is None else deadline - time.perf_counter())
        return original(self, *args)

    monkeypatch.setattr(Predictor, "write", noted)
    monkeypatch.setattr(run, "_process_start_s", lambda: run._now_s() - 400)
    assert call("--time-budget", "1000")[0] == 0
    first, second = left
    assert first == pytest.approx(600, abs=30)
    assert second == pytest.approx(1000, abs=30)
    left.clear()
    assert call()[0] == 0
    assert left == [None, None]


def test_a_line_says_what_the_deadline_changed(call: Call, scans: Path) -> None:
    """A second is less than the margin: step 1 is all that can be done."""
    code, out, err = call("--time-budget", "0.001")
    assert code == 0
    assert len(err) == 4
    assert all(line.startswith(f"warning: {scans}") for line in err)
    assert "no step makes it; starting again with step 1 (12 windows)" in err[0]
    assert re.search(r"X.nii.gz: done \d+\.\d s after the time budget$", err[1])
    assert sum("-> " in line for line in out) == 2


def test_libraries_are_told_unless_the_user_has(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Huge pages, short waits, and little that cuBLAS keeps outside of torch's allocator."""
    told = {
        "CUBLASLT_WORKSPACE_SIZE": "128",
        "CUBLAS_WORKSPACE_CONFIG": ":16:8",
        "GOMP_SPINCOUNT": "1000",
        "OMP_WAIT_POLICY": "PASSIVE",
        "THP_MEM_ALLOC_ENABLE": "1",
    }
    for name in told:
        monkeypatch.setenv(name, "the user's")
    call()
    assert [os.environ[name] for name in told] == ["the user's"] * len(told)
    for name in told:
        monkeypatch.delenv(name)
    call()
    assert {name: os.environ[name] for name in told} == told
