"""How a case ended. Every state but `ok` counts with a penalty, and none is left out."""

import re
import signal
from enum import StrEnum

from evaluation.runners import MEMORY, TIMEOUT, Limits, Outcome, last_line

# A kernel that ends a process for memory leaves it at its limit, give or take the last pages.
AT_THE_LIMIT = 0.98
KILLED = 137
OUT_OF_VRAM = re.compile(
    r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|cudaErrorMemoryAllocation"
    r"|CUDA_ERROR_OUT_OF_MEMORY|ALLOC_FAILED|Failed to allocate memory for requested buffer"
    r"|RESOURCE_EXHAUSTED",
    re.IGNORECASE,
)


class State(StrEnum):
    """What a case came to; only infra_error is not the submission's doing, and is tried again."""

    OK = "ok"
    NONZERO_EXIT = "nonzero_exit"
    TIMEOUT = "timeout"
    OOM_RAM = "oom_ram"
    OOM_VRAM = "oom_vram"
    NO_OUTPUT = "no_output"
    BAD_OUTPUT = "bad_output"
    INFRA_ERROR = "infra_error"


def of_outcome(outcome: Outcome, limits: Limits, timeout_s: float) -> tuple[State, str]:
    """Return the state of a run by the way it ended, without a look at its output, and one line.

    The engine's own word on memory is unreliable, so what the control group says counts as well.
    """
    said = last_line(outcome.log)
    if outcome.stopped == TIMEOUT:
        return State.TIMEOUT, f"stopped at the time limit of {timeout_s:g} s; its last line: {said}"
    if outcome.stopped == MEMORY or (outcome.exit_code != 0 and _ran_out_of_ram(outcome, limits)):
        return State.OOM_RAM, f"needed more than {limits.memory_mib} MiB of memory"
    if outcome.stopped is not None:
        return State.BAD_OUTPUT, outcome.stopped
    if outcome.exit_code == 0:
        return State.OK, ""
    code = _named(outcome.exit_code)
    if found := OUT_OF_VRAM.search(outcome.log):
        return State.OOM_VRAM, f"{code}, out of GPU memory: {found.group()}"
    forks = ""
    if outcome.forks_refused:
        forks = f", after the limit of {limits.pids} processes was reached"
    return State.NONZERO_EXIT, f"{code}{forks}: {said}"


def _named(exit_code: int | None) -> str:
    """Return an exit code, with the signal that a shell says by it."""
    try:
        return f"exit code {exit_code} ({signal.Signals((exit_code or 0) - 128).name})"
    except ValueError:
        return f"exit code {exit_code}"


def _ran_out_of_ram(outcome: Outcome, limits: Limits) -> bool:
    if outcome.oom_kills:
        return True
    full = (outcome.peak_ram_mib or 0.0) >= AT_THE_LIMIT * limits.memory_mib
    return outcome.exit_code == KILLED and full
