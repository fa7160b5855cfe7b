"""What torch and its libraries read from the environment, once, when they are loaded."""

from __future__ import annotations

import os

_DEFAULTS = {
    # Threads that wait should sleep, not spin: where another program or a CPU quota takes a core
    # away, spinning makes a CPU run several times slower. Some microseconds (turns of libgomp)
    # bridge the gap between two operations: by hand on two cores, an eighth less for the network of
    # cpu-small on an idle machine, the same beside two busy programs, a tenth more at a quota.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
    # Each of cuBLAS' and cuBLASLt's handles keeps as much as this (KiB: 8 buffers of 16, and 128);
    # their own choice is 98 MiB in all on an H200, outside of what the plan of memory knows.
    "CUBLAS_WORKSPACE_CONFIG": ":16:8",
    "CUBLASLT_WORKSPACE_SIZE": "128",
    # torch's CPU allocator should ask the kernel for huge pages: otherwise the activations of every
    # window, which are freed and mapped anew, fault page by page (see benchmarks.shortcuts).
    "THP_MEM_ALLOC_ENABLE": "1",
}


def set_defaults() -> None:
    """For what the user has not set; to be called before torch is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
