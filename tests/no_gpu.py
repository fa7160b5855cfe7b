"""How a test session sees no GPU, on whatever machine it runs: its tests expect a CPU."""

from __future__ import annotations

import os
from pathlib import Path

NVML = "libnvidia-ml.so.1"


def environment(folder: Path) -> dict[str, str]:
    """What processes need from now on; ``folder`` gets an empty file.

    CUDA reads its variable when it first looks for a GPU. The harness finds GPUs by NVML, which
    the dynamic linker takes for unusable when the first file of its name is.
    """
    folder.joinpath(NVML).touch()
    before = os.environ.get("LD_LIBRARY_PATH")
    path = f"{folder}:{before}" if before else str(folder)
    return {"CUDA_VISIBLE_DEVICES": "", "LD_LIBRARY_PATH": path}
