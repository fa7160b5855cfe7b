"""NVIDIA's driver library through ctypes: loading an image, launching its kernels.

Not through cuda.bindings: three calls are needed, CPU builds of torch do not bring that package,
and importing it takes longer than loading a kernel.
"""

from __future__ import annotations

import ctypes
from typing import Any

Pointer = ctypes.c_void_p
Unsigned = ctypes.c_uint


class DriverError(RuntimeError):
    """A call of the driver that failed: its name and CUresult."""


class Driver:
    """The functions of ``library`` that kernels need, in the thread's current CUDA context.

    ``library`` is a loaded libcuda or what stands in for it; DriverError if a function is missing.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        try:
            self._load, self._find, self.launch = (
                library["cuModuleLoadData"],
                library["cuModuleGetFunction"],
                library["cuLaunchKernel"],
            )
        except AttributeError as error:
            raise DriverError(str(error)) from None
        self._load.argtypes = [ctypes.POINTER(Pointer), ctypes.c_char_p]
        self._find.argtypes = [ctypes.POINTER(Pointer), Pointer, ctypes.c_char_p]
        # function, grid and block in x, y, z, shared bytes, stream, parameters, extra
        self.launch.argtypes = [Pointer, *[Unsigned] * 7, Pointer, Pointer, Pointer]

    def functions(self, image: bytes, names: tuple[str, ...]) -> list[int]:
        """Handles of the kernels ``names`` in ``image`` (cubin or PTX); DriverError if it fails.

        The module stays loaded until the process ends.
        """
        module = Pointer()
        check("cuModuleLoadData", self._load(ctypes.byref(module), image))
        handles = []
        for name in names:
            function = Pointer()
            result = self._find(ctypes.byref(function), module, name.encode())
            check(f"cuModuleGetFunction({name})", result)
            handles.append(function.value or 0)
        return handles


def check(call: str, result: Any) -> None:
    """Raise DriverError unless ``result``, the CUresult of ``call``, is 0."""
    if result:
        raise DriverError(f"{call}: CUDA error {result}")
