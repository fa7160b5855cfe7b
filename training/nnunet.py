"""The way to nnU-Net: an environment of its own, entered as a process with its folders named."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from pathlib import Path

from evaluation.parent import end_with
from training.errors import TrainingError

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-nnunet" / "bin" / "python"
RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"


def run(module: str, *arguments: object, data: Path, results: Path, processes: int) -> None:
    """Run ``training.module`` in nnU-Net's environment; what it prints is shown as it comes.

    data: holds nnUNet_raw and nnUNet_preprocessed. processes: for preprocessing and export. Raises
    TrainingError where it fails, which it has then explained itself.
    """
    if not PYTHON.exists():
        raise TrainingError(f"{PYTHON}: is missing; install nnU-Net with `make oracle`")
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        RAW: str((data / RAW).resolve()),
        PREPROCESSED: str((data / PREPROCESSED).resolve()),
        RESULTS: str(results.resolve()),
        "nnUNet_def_n_proc": str(processes),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow each other down
        "THP_MEM_ALLOC_ENABLE": "1",  # huge pages: a third less of the kernel's time on a CPU
    }
    command = [str(PYTHON), "-m", f"training.{module}", *map(str, arguments)]
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        raise TrainingError(
            f"nnU-Net's {module}: {how}, see above; correct that and start again, it goes on"
        )


def end_with_parent() -> None:
    """End this process, and those it has started, soon after its parent, however that ends.

    Else a killed training would go on unseen, beside the one that is started in its place.
    """
    end_with(os.getppid(), and_before=_kill_children)


def _kill_children() -> None:
    for child in multiprocessing.active_children():
        child.kill()
