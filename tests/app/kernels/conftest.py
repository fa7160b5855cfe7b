from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from app.kernels.driver import Driver
from app.kernels.norm import NormKernel

NORM_CU = Path(__file__).parents[3] / "app" / "kernels" / "norm.cu"
STREAM = 0x5EED


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The driver's functions over norm.cu compiled for the host: see stand_in.cpp."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    library = tmp_path_factory.mktemp("stand_in") / "libcuda.so"
    source = Path(__file__).with_name("stand_in.cpp")
    # Contraction is left to the source's own fmaf.
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wno-unknown-pragmas", "-fPIC", "-shared"]
    command = [compiler, *flags, f'-DNORM_CU="{NORM_CU}"', str(source), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = ctypes.CDLL(str(library))
    loaded.stand_in_stream.restype = ctypes.c_void_p
    return loaded


@pytest.fixture
def kernel(stand_in: ctypes.CDLL) -> NormKernel:
    return NormKernel(Driver(stand_in), b"image", 2, lambda: STREAM)
