"""A function on many jobs in processes of their own, which end with the one that started them."""

import signal
import subprocess
import sys
from pathlib import Path

from evaluation.parallel import parallel_map
from tests.engine import ROOT

# The first starts the second and waits; the second writes a file when it ends with the first.
CHILD = """
import os, sys, time
from pathlib import Path
from evaluation.parent import end_with
end_with(os.getppid(), and_before=Path(sys.argv[1]).touch)
print("started", flush=True)
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def ignores_ctrl_c(_: int) -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    before = signal.getsignal(signal.SIGINT)
    assert all(parallel_map(ignores_ctrl_c, range(3)))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_process_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    command = [sys.executable, "-c", PARENT, CHILD, str(ended)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        assert not ended.exists()
        parent.kill()
        assert parent.stdout.read() == ""  # nobody holds its other end any more
    assert ended.exists()
