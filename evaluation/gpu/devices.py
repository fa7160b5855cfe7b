"""Finds the GPU that a run is measured on.

GPUs go by UUID: NVML's index may differ from CUDA's order.
"""

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.gpu import nvml
from evaluation.gpu.curve import Api

NONE = "none"
TIMEOUT_S = 30.0  # without persistence mode the driver takes seconds to wake each GPU
_KILL_S = 2.0
_ROOT = Path(__file__).resolve().parents[2]  # where `-m` finds this package, and no other


@dataclass(frozen=True)
class Gpu:
    """One GPU, or one MIG instance; total_mib in MiB, api: NVML's memory API that it answers."""

    uuid: str
    name: str
    driver: str
    total_mib: float
    api: Api


def find(choice: str | None, timeout_s: float = TIMEOUT_S) -> Gpu | None:
    """Return the GPU to measure on, or None for a run without one.

    choice: a UUID (GPU-... or MIG-...); "none"; or None for the only GPU of this machine, if it has
    one. Raises EvaluationError when the choice is not here, when there are several to choose from,
    when the driver fails or does not answer within timeout_s.
    """
    if choice == NONE:
        return None
    usable, broken = _sorted(_ask(timeout_s))
    if choice is not None:
        for gpu in usable:
            if gpu.uuid == choice:
                return gpu
        raise EvaluationError(f"GPU {choice} is not here: {_list(usable, broken)}")
    if not usable and not broken:
        return None
    if len(usable) == 1 and not broken:
        return usable[0]
    raise EvaluationError(f"choose one GPU by its UUID, or {NONE!r}: {_list(usable, broken)}")


def every(timeout_s: float = TIMEOUT_S) -> tuple[list[Gpu], str]:
    """Return all GPUs of this machine that work, and what is to be said of those that do not.

    Raises EvaluationError when none of them works, or the driver does not answer.
    """
    usable, broken = _sorted(_ask(timeout_s))
    if broken and not usable:
        raise EvaluationError(f"no GPU of this machine works: {_list(usable, broken)}")
    return usable, _list([], broken) if broken else ""


def _sorted(answer: dict[str, Any]) -> tuple[list[Gpu], list[dict[str, Any]]]:
    """Return the GPUs that can be used, and what is said of those that cannot."""
    usable = [Gpu(**device) for device in answer["devices"] if "error" not in device]
    return usable, [device for device in answer["devices"] if "error" in device]


def _list(usable: list[Gpu], broken: list[dict[str, Any]]) -> str:
    present = [f"{gpu.uuid} ({gpu.name}, {gpu.total_mib:.0f} MiB)" for gpu in usable]
    present += [f"number {device['index']} does not work ({device['error']})" for device in broken]
    return "; ".join(present) or "there is no GPU"


def _ask(timeout_s: float) -> dict[str, Any]:
    """Let a process of its own ask NVML: a broken driver may never answer."""
    process = subprocess.Popen(
        [sys.executable, "-m", "evaluation.gpu.devices"],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        process.kill()
        # A process that hangs within the driver may not even be killed: it is not waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_KILL_S)
        raise EvaluationError(
            f"the NVIDIA driver did not answer within {timeout_s:g} s (does nvidia-smi?)"
        ) from error
    if process.returncode != 0:
        reason = (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise EvaluationError(f"GPUs cannot be listed: {reason}")
    answer: dict[str, Any] = json.loads(output)
    if "error" in answer:
        raise EvaluationError(f"GPUs cannot be listed: NVML says {answer['error']!r}")
    return answer


def _answer() -> dict[str, Any]:
    try:
        return {"devices": nvml.describe_all()}
    except nvml.NO_LIBRARY:
        return {"devices": []}
    except nvml.NvmlError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    print(json.dumps(_answer()))
