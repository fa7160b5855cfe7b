from dataclasses import replace

import pytest

from evaluation.runners import MEMORY, TIMEOUT, WITHOUT_SANDBOX
from evaluation.states import State, of_outcome
from tests.evaluation.scripted import ENDED_WELL

LIMIT = WITHOUT_SANDBOX
CLEAN = replace(ENDED_WELL, log="loading\nwent wrong\n\n")


@pytest.mark.parametrize(
    ("changes", "state", "says"),
    [
        ({}, State.OK, ""),
        ({"exit_code": 3}, State.NONZERO_EXIT, "exit code 3: went wrong"),
        ({"exit_code": 1, "forks_refused": 7}, State.NONZERO_EXIT, "limit of None processes"),
        ({"exit_code": None, "stopped": TIMEOUT}, State.TIMEOUT, "time limit of 45 s"),
        ({"exit_code": None, "stopped": MEMORY}, State.OOM_RAM, "28672 MiB"),
        ({"exit_code": 1, "oom_kills": 1}, State.OOM_RAM, "28672 MiB"),
        # The engine missed it, the control group did not.
        ({"exit_code": 137, "peak_ram_mib": 28600.0}, State.OOM_RAM, "28672 MiB"),
        # 98 % of the limit, 28098.56 MiB, is as much as a peak that is sampled can show.
        ({"exit_code": 137, "peak_ram_mib": 28099.0}, State.OOM_RAM, "28672 MiB"),
        ({"exit_code": 137, "peak_ram_mib": 28098.0}, State.NONZERO_EXIT, "exit code 137"),
        ({"exit_code": 139}, State.NONZERO_EXIT, "exit code 139 (SIGSEGV): went wrong"),
        ({"exit_code": 255}, State.NONZERO_EXIT, "exit code 255: went wrong"),
        # Killed by something else.
        ({"exit_code": 137, "peak_ram_mib": 900.0}, State.NONZERO_EXIT, "exit code 137"),
        # A child was killed for memory and the submission coped.
        ({"oom_kills": 1}, State.OK, ""),
        ({"exit_code": None, "stopped": "stopped: much"}, State.BAD_OUTPUT, "stopped: much"),
    ],
)
def test_the_way_a_run_ends_gives_its_state(
    changes: dict[str, object], state: State, says: str
) -> None:
    found, message = of_outcome(replace(CLEAN, **changes), LIMIT, 45.0)  # type: ignore[arg-type]
    assert found is state
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "line",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "RuntimeError: CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "onnxruntime: Failed to allocate memory for requested buffer of size 4294967296",
        "RESOURCE_EXHAUSTED: OOM when allocating tensor",
        "pycuda._driver.MemoryError: cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY",
    ],
)
def test_frameworks_say_that_gpu_memory_ran_out_in_many_ways(line: str) -> None:
    ended = replace(CLEAN, exit_code=1, log=f"loading\n{line}\nclosing\n")
    assert of_outcome(ended, LIMIT, 45.0)[0] is State.OOM_VRAM
    # Who falls back to less memory and ends well has not failed.
    assert of_outcome(replace(ended, exit_code=0), LIMIT, 45.0)[0] is State.OK
