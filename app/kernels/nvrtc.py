"""NVIDIA's run-time compiler, by ctypes: CUDA C to cubins and PTX, without a GPU or a toolkit."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

# Nothing about arithmetic: by default division and square root round as IEEE 754 does.
OPTIONS = ("--std=c++17",)


class NvrtcError(Exception):
    """NVRTC refused: its message and, for a compilation, its log."""


class Nvrtc:
    """One loaded libnvrtc. Raises OSError or AttributeError where ``path`` is none."""

    def __init__(self, path: str) -> None:
        # PyPI's libnvrtc asks the linker for its second half by name alone, which is then loaded.
        for builtins in Path(path).parent.glob("libnvrtc-builtins.so.*") if "/" in path else ():
            ctypes.CDLL(str(builtins))
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        self.architectures = self._supported()

    def cubin(self, source: bytes, architecture: int) -> bytes:
        """``source`` compiled for one architecture (90 for sm_90); NvrtcError if it cannot be."""
        return self._compile(source, f"sm_{architecture}", "CUBIN")

    def ptx(self, source: bytes, architecture: int) -> bytes:
        """``source`` as PTX for this compute capability (75 for 7.5) and all higher ones."""
        return self._compile(source, f"compute_{architecture}", "PTX")

    def _supported(self) -> tuple[int, ...]:
        """Architectures it compiles for, ascending."""
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        found = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(found))
        return tuple(sorted(found))

    def _compile(self, source: bytes, architecture: str, form: str) -> bytes:
        options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}")]
        program = ctypes.c_void_p()
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program), source, b"norm.cu", 0, None, None
            )
        )
        try:
            array = (ctypes.c_char_p * len(options))(*options)
            code = self._library.nvrtcCompileProgram(program, len(options), array)
            if code:
                log = self._read(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
                raise NvrtcError(f"{architecture}: {self._message(code)}\n{log}".rstrip())
            return self._read(program, form)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(self._library[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(self._library[f"nvrtcGet{what}"](program, buffer))
        return buffer.raw

    def _message(self, code: int) -> str:
        return bytes(self._library.nvrtcGetErrorString(code)).decode()

    def _check(self, code: int) -> None:
        if code:
            raise NvrtcError(self._message(code))


def find_nvrtc() -> Nvrtc | None:
    """The NVRTC that came with torch's CUDA build, else the system's; None where there is none."""
    return first_nvrtc(candidates(sys.path))


def candidates(search_path: list[str]) -> list[str]:
    """Where libnvrtc may be: PyPI's packages on ``search_path``, then names for the linker."""
    packaged = [
        str(file)
        for entry in search_path
        for file in sorted(Path(entry).glob("nvidia/*/lib/libnvrtc.so.*"), reverse=True)
        if ".alt." not in file.name
    ]
    return [*packaged, "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]


def first_nvrtc(paths: list[str], load: Callable[[str], Nvrtc] = Nvrtc) -> Nvrtc | None:
    """The first of ``paths`` that is an NVRTC which makes cubins."""
    for path in paths:
        try:
            return load(path)
        except (OSError, AttributeError, NvrtcError):  # absent, older than cubins, incomplete
            continue
    return None
