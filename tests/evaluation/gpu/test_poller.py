import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from evaluation.gpu import poller, sampler

ROOT = Path(__file__).resolve().parents[3]


def test_deadlines_stay_on_the_grid_however_late_each_one_is_met() -> None:
    rng = np.random.default_rng(2)
    origin_s = now_s = 1000.0
    numbers = []
    for lateness_s in rng.exponential(0.01, 5000):
        deadline_s = poller.next_deadline(origin_s, 0.02, now_s)
        assert now_s < deadline_s <= now_s + 0.02 + 1e-9
        numbers.append((deadline_s - origin_s) / 0.02)
        now_s = deadline_s + lateness_s
    np.testing.assert_allclose(numbers, np.round(numbers), rtol=0, atol=1e-6)
    assert (np.diff(np.round(numbers)) >= 1).all()


def test_missed_deadlines_are_skipped() -> None:
    assert poller.next_deadline(10.0, 0.5, 11.7) == 12.0


def test_records_have_one_layout_for_writer_and_reader() -> None:
    record = np.frombuffer(poller.RECORD.pack(1.5, 2.5, 4, 3, 2, 1), sampler._RECORD)[0]
    assert record.tolist() == (1.5, 2.5, 4, 3, 2, 1)


def test_identity_of_a_running_process(tmp_path: Path) -> None:
    program = tmp_path / "a) (b c"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"], start_new_session=True) as process:
        try:
            known = poller.identity(process.pid)
        finally:
            process.kill()
    assert known["name"] == "a) (b c"
    assert known["session"] == process.pid
    assert known["started_ticks"] > 0
    assert known["cgroup"] == Path("/proc/self/cgroup").read_text()


def test_identity_of_a_process_that_is_gone() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    unknown = {"name": None, "session": None, "started_ticks": None, "cgroup": None}
    assert poller.identity(process.pid) == unknown


def modules_after(script: str) -> set[str]:
    command = [sys.executable, "-c", f"{script}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_poller_imports_nothing_heavy() -> None:
    # Whatever site-packages brings into every interpreter is not the poller's.
    brought = modules_after("import evaluation.gpu.poller") - modules_after("pass")
    assert brought - set(sys.stdlib_module_names) == {"evaluation", "pynvml", "volumes"}
