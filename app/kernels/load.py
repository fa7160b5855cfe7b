"""The norm kernel for the GPU at hand: compiled at image build, else by the driver or NVRTC now."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from app.kernels.driver import Driver, DriverError
from app.kernels.images import LOWEST, SOURCE, source_key, stored_cubins, stored_ptx
from app.kernels.norm import NormKernel
from app.kernels.nvrtc import Nvrtc, NvrtcError, find_nvrtc
from app.kernels.trial import works


def load_norm_kernel(device: torch.device) -> tuple[NormKernel | None, str]:
    """The kernel in the current CUDA context, or None, and a phrase for the log that says which."""
    properties = torch.cuda.get_device_properties(device)
    capability = 10 * properties.major + properties.minor
    try:
        driver = Driver(ctypes.CDLL("libcuda.so.1"))
    except (OSError, DriverError) as error:
        return None, f"no norm kernel ({error}), torch's own operations"
    for name, image in images_for(capability, SOURCE.parent, find_nvrtc):
        try:
            kernel = NormKernel(driver, image, properties.multi_processor_count, _current_stream)
        except DriverError:  # a driver older than the compiler, say
            continue
        if works(kernel, device):
            return kernel, f"norm kernel: {name}"
    return None, f"no norm kernel for sm_{capability}, torch's own operations"


def images_for(
    capability: int, folder: Path, find: Callable[[], Nvrtc | None]
) -> Iterator[tuple[str, bytes]]:
    """What may run on a device of ``capability`` (90 for 9.0), the quickest to load first."""
    source = SOURCE.read_bytes()
    key = source_key(source)
    for architecture, file in stored_cubins(folder, key, capability):
        yield f"cubin sm_{architecture}", file.read_bytes()
    for architecture, file in stored_ptx(folder, key, capability):
        yield f"PTX compute_{architecture}", file.read_bytes() + b"\0"
    if capability < LOWEST:
        return
    nvrtc = find()
    if nvrtc is not None and capability in nvrtc.architectures:
        try:
            yield f"compiled now for sm_{capability}", nvrtc.cubin(source, capability)
        except NvrtcError:
            return


def _current_stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream)
