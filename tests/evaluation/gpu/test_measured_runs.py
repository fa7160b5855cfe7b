"""Whole evaluations on a stand-in GPU whose memory curve the submission itself starts."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from evaluation import harness
from evaluation.bench import bench
from evaluation.cases import find
from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.gpu.curve_file import read_curve
from evaluation.harness import Plan, evaluate
from evaluation.record import Record
from evaluation.states import State
from evaluation.store import Store
from evaluation.submission import Submission
from evaluation.trial import MeasuredRunner
from tests import engine
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.gpu.nvml import FakeDevice, FakeNvml
from tests.submissions import lesion, save, write_cases

pytestmark = pytest.mark.slow

SHORT = replace(CONDITIONS, timeout_s=60.0)
# 2000 MiB and a plateau: 0.25 * 2000 + 1.0 * 2000 + 0.25 * 2000 MiB s.
AREA_MIB_S, PEAK_MIB = 2500.0, 2000.0
SUBMISSION = """
import os, pathlib, shutil, sys, time
sys.path.insert(0, {root!r})
from tests.evaluation.gpu.nvml import FakeDevice, FakeNvml, FakeProcess, Segment
gpu = FakeNvml(pathlib.Path(os.environ["FAKE_NVML"]), pathlib.Path({library!r}))
gpu.list_processes([FakeProcess(os.getpid(), 1800), *[FakeProcess(pid, 5) for pid in {others}]])
time.sleep(0.3)
gpu.play([Segment(0.25, 0, 2000), Segment(1.0, 2000, 2000), Segment(0.25, 2000, 0)])
time.sleep(0.75)
{middle}
time.sleep(1.25)
gpu.list_processes([FakeProcess(pid, 5) for pid in {others}])
(scan,) = pathlib.Path("inputs").iterdir()
shutil.copy("mask.nii.gz", pathlib.Path("outputs") / scan.name.replace("_0000", ""))
"""


class Setting:
    def __init__(self, folder: Path, fake: FakeNvml) -> None:
        self.folder, self.fake = folder, fake
        self.source = folder / "submission"
        save(self.source / "mask.nii.gz", lesion())

    def write(self, middle: str = "", others: tuple[int, ...] = ()) -> Submission:
        library = str(self.fake.built)
        text = SUBMISSION.format(
            root=str(engine.ROOT), library=library, middle=middle, others=list(others)
        )
        (self.source / "predict.py").write_text(text)
        (self.source / "predict.sh").write_text(f"exec {sys.executable} predict.py\n")
        return Submission(command="sh predict.sh", source=self.source)

    def evaluate(self, submission: Submission, count: int = 1) -> list[Record]:
        scans, labels = write_cases(self.folder, [f"case{i}" for i in range(count)])
        plan = Plan(submission, find(scans, labels), self.folder / "results", SHORT)
        return evaluate(plan, io.StringIO())


@pytest.fixture
def setting(tmp_path: Path, fake: FakeNvml) -> Setting:
    return Setting(tmp_path, fake)


@pytest.fixture
def stranger() -> Iterator[int]:
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process.pid
    process.kill()
    process.wait()


@pytest.mark.alone
def test_time_peak_and_area_are_those_of_the_submission(setting: Setting) -> None:
    for one in setting.evaluate(setting.write(), count=2):
        assert (one.state, one.message, one.attempts) == (State.OK, "", 1)
        assert one.vram is not None
        assert one.usage is not None
        assert one.vram.area_mib_s == pytest.approx(AREA_MIB_S, rel=0.005)
        assert one.vram.peak_vram_mib == PEAK_MIB
        assert one.vram.baseline_mib == 300.0
        assert one.vram.contaminated == ()
        assert one.vram.area_above_limit_mib_s == 0
        assert one.vram.tail_s == 0.0
        assert one.vram.first_use_s is not None
        assert 0.3 < one.vram.first_use_s < one.usage.runtime_s - 1.5
        # The organisers' poller sees the whole GPU: idle and reserved memory, from make to remove.
        assert one.vram.flare_max_gpu_mb == 300 + 500 + PEAK_MIB
        whole = 800 * one.usage.wall_s + AREA_MIB_S
        assert one.vram.flare_auc_gpu_time == pytest.approx(whole, rel=0.08)
        kept = read_curve(Store(setting.folder / "results").curve(one.case))
        assert kept.used_mib.max() == 2300.0
        assert kept.t_s[0] < -0.9
        assert (setting.folder / "results" / "plots" / f"{one.case}.png").stat().st_size > 5000
        assert one.environment["gpu"]["uuid"] == "GPU-1"


def test_another_process_on_the_gpu_is_said(setting: Setting, stranger: int) -> None:
    (one,) = setting.evaluate(setting.write(others=(stranger,)))
    assert one.state is State.OK
    assert one.vram is not None
    (reason,) = one.vram.contaminated
    assert f"PID {stranger}, sleep, 5 MiB" in reason
    assert "contaminated" in (setting.folder / "results" / "tables.md").read_text().lower()


@pytest.mark.alone
def test_a_gpu_that_is_lost_is_not_the_submissions_fault(setting: Setting) -> None:
    """Lost in the first attempt only: the second one counts, and the area is whole again."""
    middle = (
        "mark = pathlib.Path(os.environ['FAKE_NVML']) / 'mark'\n"
        "if not mark.exists():\n"
        "    gpu.lost_s = time.monotonic(); gpu.update(); mark.touch(); time.sleep(60)\n"
    )

    def mend() -> None:
        while not (setting.fake.folder / "mark").exists():
            time.sleep(0.02)
        time.sleep(1)
        setting.fake.update()

    threading.Thread(target=mend, daemon=True).start()
    (one,) = setting.evaluate(setting.write(middle))
    assert (one.state, one.attempts) == (State.OK, 2)
    assert one.vram is not None
    assert one.vram.area_mib_s == pytest.approx(AREA_MIB_S, rel=0.005)


def test_a_gpu_that_stays_lost_is_an_infra_error_that_a_resumed_run_mends(
    setting: Setting, impatient: None
) -> None:
    lost = setting.write("gpu.lost_s = time.monotonic(); gpu.update(); time.sleep(60)\n")
    (one,) = setting.evaluate(lost)
    assert (one.state, one.attempts, one.accuracy) == (State.INFRA_ERROR, 3, None)
    assert "GPU GPU-1 was lost" in one.message
    assert one.vram is None
    setting.fake.update()  # the GPU is back
    setting.write()
    scans, labels = setting.folder / "scans", setting.folder / "labels"
    plan = Plan(lost, find(scans, labels), setting.folder / "results", SHORT, resume=True)
    (again,) = evaluate(plan, io.StringIO())
    assert again.state is State.OK


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PAUSE_S", 0.1)


def test_a_machine_that_fails_case_after_case_stops_the_run(
    setting: Setting, impatient: None
) -> None:
    lost = setting.write("gpu.lost_s = time.monotonic(); gpu.update(); time.sleep(60)\n")
    with pytest.raises(EvaluationError, match=r"3 cases in a row failed .* --resume"):
        setting.evaluate(lost, count=5)
    assert len(list((setting.folder / "results" / "cases").iterdir())) == 3


def test_a_driver_that_hangs_is_noticed(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "ATTEMPTS", 1)
    hanging = setting.write("gpu.hang_s = time.monotonic(); gpu.update(); time.sleep(60)\n")
    (one,) = setting.evaluate(hanging)
    assert one.state is State.INFRA_ERROR
    assert "an NVML call hangs" in one.message


def test_bench_judges_memory_and_time(setting: Setting, tmp_path: Path) -> None:
    setting.fake.devices = (FakeDevice("GPU-1", idle_mib=10.0),)
    setting.fake.update()
    scans, _ = write_cases(tmp_path, ["a"])
    gpu = devices.find(None)
    out = io.StringIO()
    runner = setting.write().runner(SHORT, gpu)
    with MeasuredRunner(runner, SHORT, tmp_path, gpu) as measured:
        assert bench(measured, find(scans), 2, out)
    text = out.getvalue()
    assert "Stand-in GPU" in text
    assert "| 2000 (2000 to 2000) |" in text
    assert "| 0 MiB s (0%) | pass: time 45 s; pass: memory 4 GB |" in text
