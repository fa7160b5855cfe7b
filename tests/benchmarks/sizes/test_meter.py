"""What a run costs, measured for real; the GPU is the stand-in of tests/evaluation/gpu."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.sizes.meter import CommandFailed, Meter, others
from evaluation.gpu.curve import Baseline
from evaluation.gpu.devices import Gpu
from evaluation.gpu.processes import GpuProcess
from tests.evaluation.gpu import nvml

GPU = Gpu("GPU-1", "Stand-in GPU", "1", 24576.0, "v2")
QUIET = Baseline(300.0, 0.0)


def python(script: str) -> list[str | Path]:
    return [sys.executable, "-c", script]


def test_time_and_memory_of_the_largest_process_and_not_of_this_one(tmp_path: Path) -> None:
    ballast = b"x" * (400 * 2**20)  # this process's, which a child's peak would begin with
    waits = "import time; time.sleep(0.5); print('done')"
    holds = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'b\"x\" * 200 * 2**20'])"
    with Meter(None, tmp_path / "work") as meter:
        cost, printed = meter.run("waits", python(waits), {}, tmp_path)
        child, _ = meter.run("holds", python(holds), {}, tmp_path)
    del ballast
    assert printed == "done\n"
    assert 0.5 <= cost.wall_s < 20
    assert 1 < cost.peak_rss_mib < 100
    assert 200 < child.peak_rss_mib < 300
    assert (cost.peak_vram_mib, cost.area_mib_s, cost.notes) == (None, None, ())


def test_environment_and_folder_are_the_commands_own(tmp_path: Path) -> None:
    script = "import os; print(os.getcwd(), os.environ['SAYS'], os.environ['CUDA_VISIBLE_DEVICES'])"
    with Meter(None, tmp_path / "work") as meter:
        _, printed = meter.run("env", python(script), {"SAYS": "yes"}, tmp_path)
    assert printed.split() == [str(tmp_path.resolve()), "yes"]


def test_failures_say_why(tmp_path: Path) -> None:
    with Meter(None, tmp_path / "work") as meter:
        with pytest.raises(CommandFailed, match="exit code 3: no room"):
            meter.run("a", python("import sys; print('no room'); sys.exit(3)"), {}, tmp_path)
        with pytest.raises(CommandFailed, match="exit code -9"):
            meter.run("b", python("import os; os.kill(os.getpid(), 9)"), {}, tmp_path)
        with pytest.raises(CommandFailed, match="could not be started"):
            meter.run("c", [tmp_path / "nothing"], {}, tmp_path)


@pytest.mark.alone
def test_peak_and_area_of_gpu_memory(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = nvml.FakeNvml(tmp_path, nvml.compile_library(tmp_path_factory.mktemp("nvml")))
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "work" / "logs" / "a.log"

    def play() -> None:
        while not log.exists():
            time.sleep(0.01)
        time.sleep(0.3)
        fake.play([nvml.Segment(1.0, 800, 800)])

    playing = threading.Thread(target=play)
    with Meter(GPU, tmp_path / "work") as meter:
        playing.start()
        cost, _ = meter.run("a", python("import time; time.sleep(2.5)"), {}, tmp_path)
    playing.join()
    assert cost.peak_vram_mib == 800
    assert cost.area_mib_s == pytest.approx(800, rel=0.1)
    assert cost.notes == ()
    assert (tmp_path / "work" / "curves" / "a.csv.gz").exists()
    assert not list((tmp_path / "work").glob("gpu-*"))


@pytest.mark.parametrize(
    ("first_seen_s", "session", "foreign"),
    [
        (10.5, 7, False),
        (10.5, None, False),  # in another PID namespace: taken for ours
        (9.5, 7, True),
        (9.5, None, True),
        (10.5, 8, True),
    ],
)
def test_company_on_the_gpu(first_seen_s: float, session: int | None, foreign: bool) -> None:
    process = GpuProcess(os.getpid(), "x", session, None, first_seen_s, 11.0, 5.0, None)
    assert len(others([process], 10.0, 7, QUIET)) == int(foreign)
