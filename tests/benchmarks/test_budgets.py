"""benchmarks.budgets: verdicts, and a whole run under the stand-in NVML with a stub for the app."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import budgets, programs
from benchmarks.budgets import BROKEN, FAILED, KEPT, REFUSED, Result, refused, table, verdict
from benchmarks.published import Weights
from evaluation.gpu import devices
from evaluation.gpu.devices import Gpu
from examples import samples
from examples.samples import Sample
from tests.evaluation.gpu import nvml

REFUSAL = "error: --vram-budget 1100: one window needs 1300 MiB (621 context ...)"


def test_a_budget_is_kept_to_the_last_mib_or_broken() -> None:
    assert verdict(1400.0, 1400) == KEPT
    assert verdict(1400.1, 1400) == BROKEN
    assert verdict(None, 1400) == FAILED  # not measured is not kept


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (REFUSAL, True),
        (f"warning: something\n{REFUSAL}\n", True),
        (f"{REFUSAL}\nerror: OutOfMemoryError", False),
        ("error: OutOfMemoryError", False),
        ("Traceback", False),
        ("", False),
    ],
)
def test_only_a_budget_that_is_too_small_is_refused(printed: str, expected: bool) -> None:
    assert refused(printed) == expected


def test_table() -> None:
    rows = [
        Result("huang", 55, 1400, KEPT, 1249.6, 4.44),
        Result("dkfz", 554, 1100, REFUSED, message="exit code 1: too small"),
    ]
    text = table(rows, "a card")
    assert "a card" in text.splitlines()[0]
    assert text.splitlines()[-2:] == [
        "| huang | 55 | 1400 | 1250 | 4.4 | kept |",
        "| dkfz | 554 | 1100 |  |  | refused: exit code 1: too small |",
    ]


@pytest.mark.parametrize(("peak", "found", "code"), [(800, KEPT, 0), (1200, BROKEN, 1)])
def test_a_run_is_judged_by_nvml(
    peak: int,
    found: str,
    code: int,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = nvml.FakeNvml(tmp_path, nvml.compile_library(tmp_path_factory.mktemp("nvml")))
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "out" / "budgets" / "logs" / "huang-55-1000.log"

    played = tmp_path / "played"

    def play() -> None:
        while not log.exists():
            time.sleep(0.01)
        curve = fake.play([nvml.Segment(0.5, peak, peak)], time.monotonic() + 0.2)
        while time.monotonic() < curve.end_s:
            time.sleep(0.01)
        played.touch()

    waiting = (
        f"import pathlib, time\nwhile not pathlib.Path({str(played)!r}).exists(): time.sleep(0.1)"
    )
    stub = [sys.executable, "-c", waiting]
    monkeypatch.setattr(programs, "app_command", lambda *_: stub)
    monkeypatch.setattr(budgets, "make_weights", lambda *_: Weights(tmp_path, tmp_path))
    monkeypatch.setattr(budgets, "make_scan", lambda *_: tmp_path / "scan.nii.gz")
    sample = Sample(samples.NAMES[0], tmp_path, tmp_path)
    monkeypatch.setattr(samples, "fetch", lambda _, names: [sample])
    playing = threading.Thread(target=play)
    playing.start()
    arguments = ["--networks", "huang", "--slices", "55", "--budgets", "1000"]
    assert budgets.main([*arguments, "--output", str(tmp_path / "out")]) == code
    playing.join()
    assert f"| huang | 55 | 1000 | {peak} |" in capsys.readouterr().out
    assert (tmp_path / "out" / "budgets.md").read_text().rstrip().endswith(f"{found} |")


def test_what_is_left_is_done_by_another_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, int, int]] = []

    def run(meter: object, network: str, model: Path, scan: Path, slices: int, mib: int) -> Result:
        ran.append((network, slices, mib))
        failed = len(ran) == 2
        return Result(network, slices, mib, FAILED if failed else KEPT, 1000.0, 1.0)

    class Ticks:
        def __init__(self, minutes: float | None) -> None:
            self.left = minutes

        def is_up(self) -> bool:
            self.left = None if self.left is None else self.left - 1
            return self.left is not None and self.left < 0

    class NoMeter:
        def __init__(self, *_: object) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(devices, "find", lambda _: Gpu("GPU-1", "a card", "580", 8192.0, "v2"))
    monkeypatch.setattr(budgets, "Time", Ticks)
    monkeypatch.setattr(budgets, "Meter", NoMeter)
    monkeypatch.setattr(budgets, "_run", run)
    monkeypatch.setattr(budgets, "make_weights", lambda *_: Weights(tmp_path, tmp_path))
    monkeypatch.setattr(budgets, "make_scan", lambda *_: tmp_path / "scan.nii.gz")
    sample = Sample(samples.NAMES[0], tmp_path, tmp_path)
    monkeypatch.setattr(samples, "fetch", lambda _, names: [sample])
    arguments = ["--networks", "huang", "--slices", "55", "--budgets", "1000", "1100", "1200"]
    call = [*arguments, "--output", str(tmp_path / "out"), "--resume"]
    assert budgets.main([*call, "--minutes", "2"]) == 1  # one has failed
    assert capsys.readouterr().err.splitlines()[-1].startswith("2 of 3 runs are left")
    assert budgets.main(call) == 0
    assert "left" not in capsys.readouterr().err
    assert [mib for _, _, mib in ran] == [1000, 1100, 1100, 1200]
    rows = (tmp_path / "out" / "budgets.md").read_text().splitlines()[-3:]
    assert [row.split(" | ")[2] for row in rows] == ["1000", "1100", "1200"]


def test_without_a_gpu_there_is_nothing_to_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "find", lambda _: None)
    assert budgets.main([]) == 1
    assert capsys.readouterr().err == ("error: NVML finds no GPU, so no budget can be measured\n")
