"""The few NVML calls that evaluation makes, with types.

Imports nothing but the standard library and nvidia-ml-py: the process that samples starts with it.
Any call may raise `NvmlError`, whose `value` is NVML's code. Any call may hang in a broken driver.
"""

from dataclasses import dataclass
from typing import Any, Literal

import pynvml  # type: ignore[import-untyped]

NvmlError = pynvml.NVMLError
NO_LIBRARY = (pynvml.NVMLError_LibraryNotFound,)
# What a query answers that has no answer here: graphics processes on MIG, anything about processes
# without the permission, accounting of a process that it has not kept. InsufficientSize: processes
# started between the two calls that listing them takes; the next look finds them.
UNAVAILABLE = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_FunctionNotFound,
    pynvml.NVMLError_NoPermission,
    pynvml.NVMLError_NotFound,
    pynvml.NVMLError_InsufficientSize,
)
_PROCESS_QUERIES = (
    pynvml.nvmlDeviceGetComputeRunningProcesses_v3,
    pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
    pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
)


@dataclass(frozen=True)
class Memory:
    """One answer of NVML, in bytes; reserved is None in the v1 API, whose `used` includes it."""

    total: int
    free: int
    used: int
    reserved: int | None


class Device:
    """One GPU, or one MIG instance, by its UUID. NVML is initialised with it, once."""

    def __init__(self, uuid: str) -> None:
        pynvml.nvmlInit()
        self._handle: Any = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        self.api: Literal["v1", "v2"] = _memory_api(self._handle)

    def memory(self) -> Memory:
        """Return the memory of the whole device now."""
        if self.api == "v1":
            v1 = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
            return Memory(v1.total, v1.free, v1.used, None)
        v2 = pynvml.nvmlDeviceGetMemoryInfo(self._handle, version=pynvml.nvmlMemory_v2)
        return Memory(v2.total, v2.free, v2.used, v2.reserved)

    def processes(self) -> dict[int, int | None]:
        """Return the processes on it, compute, graphics and MPS: PID to bytes, None where N/A.

        PIDs are the host's; bytes are not available on WSL2, and lack managed memory.
        """
        found: dict[int, int | None] = {}
        for query in _PROCESS_QUERIES:
            try:
                running = query(self._handle)
            except UNAVAILABLE:
                continue
            for process in running:
                sizes = (found.get(process.pid), process.usedGpuMemory)
                found[process.pid] = max((size for size in sizes if size is not None), default=None)
        return found

    def is_accounting(self) -> bool:
        """Whether the driver keeps the peak of every process (accounting mode, set by root)."""
        try:
            mode = pynvml.nvmlDeviceGetAccountingMode(self._handle)
        except UNAVAILABLE:
            return False
        return bool(mode == pynvml.NVML_FEATURE_ENABLED)

    def accounted(self, pid: int) -> int | None:
        """Return the most bytes that a process ever held, as accounting mode knows it, or None."""
        try:
            most = pynvml.nvmlDeviceGetAccountingStats(self._handle, pid).maxMemoryUsage
        except UNAVAILABLE:
            return None
        return None if most is None else int(most)


def describe_all() -> list[dict[str, Any]]:
    """Return every usable device: {uuid, name, driver, total_mib, api}, or {index, error}.

    A GPU that is divided by MIG stands for its instances: nothing can run on it as a whole.
    One that does not answer, or may not be used by this user, has an error.
    """
    pynvml.nvmlInit()
    driver = pynvml.nvmlSystemGetDriverVersion()
    found: list[dict[str, Any]] = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            for handle in _usable(pynvml.nvmlDeviceGetHandleByIndex(index)):
                found.append({**_describe(handle), "driver": driver})
        except NvmlError as error:
            found.append({"index": index, "error": str(error)})
    return found


def _usable(gpu: Any) -> list[Any]:
    try:
        current, _ = pynvml.nvmlDeviceGetMigMode(gpu)
    except UNAVAILABLE:
        return [gpu]
    if current != pynvml.NVML_DEVICE_MIG_ENABLE:
        return [gpu]
    instances = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            instances.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
        except UNAVAILABLE:  # a slot without an instance
            continue
    return instances


def _describe(handle: Any) -> dict[str, Any]:
    return {
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
        "name": pynvml.nvmlDeviceGetName(handle),
        "total_mib": pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**20,
        "api": _memory_api(handle),
    }


def _memory_api(handle: Any) -> Literal["v1", "v2"]:
    try:
        pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    except (*UNAVAILABLE, pynvml.NVMLError_ArgumentVersionMismatch):
        return "v1"
    return "v2"
