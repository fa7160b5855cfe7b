"""What another user of the machine can do while a stranger's container runs: nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import engine
from tests.submissions import BEHAVIOURS, Behaviour, write_cases, write_submission
from tests.test_harness import built, command, environment, option, rows

pytestmark = pytest.mark.engine

GOOD = BEHAVIOURS["good"]
# Root's own shell for everyone, as long as anyone can reach it; then it waits to be let go.
TRAP = Behaviour(
    "ok",
    "cp /bin/dash outputs/shell && chmod 4755 outputs/shell && touch outputs/set;"
    f"while [ ! -e inputs/go ]; do sleep 0.1; done; rm outputs/s*; {GOOD.script}",
    make=GOOD.make,
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter, unlike those that pytest gives."""
    with tempfile.TemporaryDirectory(prefix="open-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_nobody(script: str) -> str:
    """What a script prints that another user runs."""
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    done = subprocess.run([*drop, "sh", "-c", script], capture_output=True, text=True, check=False)
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="no setpriv")
def test_nobody_reads_a_scan_replaces_a_mask_or_becomes_root(open_folder: Path) -> None:
    source = write_submission(open_folder / "submission", {"trap": TRAP})
    write_cases(open_folder, ["trap"])
    (open_folder / "scans").chmod(0o700)  # hidden, like the references
    (open_folder / "labels").chmod(0o700)
    with built("docker", source) as name:
        run = subprocess.Popen(
            command(open_folder, option(name)),
            cwd=engine.ROOT,
            env=environment(open_folder),
            stdout=subprocess.DEVNULL,
        )
        try:
            for _ in range(1200):
                if traps := list(open_folder.rglob("outputs/set")):
                    break
                time.sleep(0.05)
            (trap,) = traps
            shell, work = trap.with_name("shell"), trap.parent.parent
            assert shell.stat().st_mode & 0o4000
            assert shell.stat().st_uid == 0
            # What nobody may see: that there are results, and no more.
            assert "run.json" in as_nobody(f"ls {open_folder}/results")
            assert as_nobody(f"find {open_folder} -name '*.nii.gz' -path '*inputs*'") == ""
            assert as_nobody(f"find {open_folder} -perm -4000") == ""
            assert as_nobody(f"ls {work}; cat {work}/inputs/*; {shell} -p -c id") == ""
            as_nobody(f"touch {work}/outputs/trap.nii.gz {work}/inputs/go {work}/inputs/x")
            assert sorted(path.name for path in work.rglob("*")) == [
                *("inputs", "outputs", "set", "shell", "trap_0000.nii.gz"),
            ]
        finally:
            for inputs in open_folder.rglob("inputs"):
                (inputs / "go").touch()
            assert run.wait(60) == 0
    assert rows(open_folder)["trap"]["dsc"] == "1.0"
    assert list(open_folder.rglob("inputs")) == []
