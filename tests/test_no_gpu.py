"""On a machine with a GPU, here a stand-in driver, no test but those of the GPU sees one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine import ROOT
from tests.evaluation.gpu import nvml

_LOOK = """
def test_look():
    import subprocess, sys
    command = [sys.executable, "-m", "evaluation.gpu.devices"]
    print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    import os
    print("CUDA", repr(os.environ.get("CUDA_VISIBLE_DEVICES")))
"""


@pytest.mark.parametrize("cuda", [False, True])
def test_a_session_hides_the_gpu(cuda: bool, tmp_path: Path) -> None:
    folder = tmp_path / "nvml"
    folder.mkdir()
    driver = nvml.FakeNvml(folder, nvml.compile_library(tmp_path))
    mark = "import pytest\npytestmark = pytest.mark.cuda\n" if cuda else ""
    look = tmp_path / "test_look.py"
    look.write_text(mark + _LOOK)
    # Torch has no GPU here; whether it has one is not what is asked.
    plugin = tmp_path / "answers.py"
    plugin.write_text("from tests import conftest\nconftest.cuda_answers = lambda: True\n")
    environment = {**os.environ, **driver.environment(), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
    command += ["-p", "tests.conftest", "-p", "answers", "--rootdir", str(tmp_path), str(look)]
    command += ["-c", str(ROOT / "pyproject.toml"), *(["--cuda"] if cuda else [])]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("Stand-in GPU" in done.stdout) == cuda
    assert ("CUDA ''" in done.stdout) == (not cuda)
