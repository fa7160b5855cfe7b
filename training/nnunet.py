"""The way to nnU-Net: an environment of its own, entered as a process with its folders named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from training.errors import TrainingError

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-nnunet" / "bin" / "python"
RAW, PREPROCESSED, RESULTS = "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"


def run(script: str, *arguments: object, data: Path, results: Path, processes: int) -> None:
    """Run ``training/script`` in nnU-Net's environment; what it prints is shown as it comes.

    data: holds nnUNet_raw and nnUNet_preprocessed. processes: for preprocessing and export. Raises
    TrainingError where it fails, which it has then explained itself.
    """
    if not PYTHON.exists():
        raise TrainingError(f"{PYTHON}: is missing; install nnU-Net with `make oracle`")
    environment = {
        **os.environ,
        RAW: str((data / RAW).resolve()),
        PREPROCESSED: str((data / PREPROCESSED).resolve()),
        RESULTS: str(results.resolve()),
        "nnUNet_def_n_proc": str(processes),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait slow each other down
    }
    command = [str(PYTHON), str(ROOT / "training" / script), *map(str, arguments)]
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        raise TrainingError(
            f"{script}: {how}, see above; correct that and start again, it goes on where it was"
        )
