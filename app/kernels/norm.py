"""Fused instance norm, residual and leaky ReLU on a GPU: norm.cu, launched on torch's stream."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from app.kernels.driver import Driver, Pointer, check

THREADS = 256  # as in norm.cu
COMBINE_THREADS = 128  # as in norm.cu
# Fewer rows per thread would spend more on combining than on reading.
ROWS_PER_THREAD = 8
# Blocks per multiprocessor: enough to hide the latency of memory, few enough to combine quickly.
MOMENT_BLOCKS = 4
APPLY_BLOCKS = 8


class Arguments(ctypes.Structure):
    """The one parameter of all kernels: struct Arguments of norm.cu, field by field."""

    _fields_ = (
        *((name, Pointer) for name in ("x", "residual", "also", "weight", "bias")),
        *((name, Pointer) for name in ("partial", "factors")),
        *((name, ctypes.c_longlong) for name in ("voxels", "rows", "also_row", "also_sample")),
        *((name, ctypes.c_int) for name in ("channels", "blocks")),
        *((name, ctypes.c_float) for name in ("eps", "slope")),
    )


class NormKernel:
    """Instance norm in place, with what follows it in a network.

    ``image``: cubin or PTX of norm.cu, loaded into the current CUDA context (DriverError if that
    fails); ``multiprocessors`` of the device; ``stream`` gives the CUstream to launch on. A call
    launches three kernels, waits for nothing, and can be captured in a CUDA graph. The device must
    be torch's current one.
    """

    def __init__(
        self, driver: Driver, image: bytes, multiprocessors: int, stream: Callable[[], int]
    ) -> None:
        self._launch = driver.launch
        self._moments, self._combine, self._apply = driver.functions(
            image, ("moments", "combine", "apply")
        )
        self._multiprocessors = multiprocessors
        self._stream = stream

    @staticmethod
    def fits(channels: int) -> bool:
        """Whether the kernel can normalise that many channels: multiples of 8 up to 1024."""
        return 0 < channels <= 1024 and channels % 8 == 0

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        negative_slope: float | None,
        residual: Tensor | None = None,
        also: Tensor | None = None,
    ) -> Tensor:
        """Normalise ``x`` (n, C, z, y, x), float16 and dense channels_last_3d, in place; return it.

        ``x * scale + shift + residual``, then a leaky ReLU unless ``negative_slope`` is None;
        computed in float32, rounded once. ``weight``, ``bias``: float32 (C). ``residual``: laid out
        as ``x``. ``also``: of x's shape, gets the result, too; its channels lie together and its
        rows at one distance, a multiple of 8, as in half of a (n, 2C, z, y, x) tensor. It must not
        overlap with ``x``. ValueError names the argument that is not so.
        """
        samples, channels, depth, height, width = x.shape
        voxels = depth * height * width
        _check_dense("x", x, x.shape)
        if not self.fits(channels):
            raise ValueError(f"x: {channels} channels; must be a multiple of 8, at most 1024")
        for name, values in (("weight", weight), ("bias", bias)):
            if values.dtype != torch.float32 or values.shape != (channels,):
                raise ValueError(f"{name}: must be float32 ({channels}), is {_describe(values)}")
            if not values.is_contiguous():
                raise ValueError(f"{name}: must be contiguous")
        if residual is not None:
            _check_dense("residual", residual, x.shape)
        also_row, also_sample = (0, 0) if also is None else _strides_of_rows(also, x.shape)
        if x.numel() == 0:
            return x

        at_once = THREADS // (channels // 8)
        wanted = max(1, MOMENT_BLOCKS * self._multiprocessors // samples)
        rows = max(-(-voxels // wanted), at_once * ROWS_PER_THREAD)
        blocks = -(-voxels // rows)
        most = max(1, APPLY_BLOCKS * self._multiprocessors // samples)
        apply_blocks = min(-(-voxels // at_once), most)

        scratch = torch.empty(samples * (blocks + 1) * 2 * channels, device=x.device)
        partial = scratch.data_ptr()
        arguments = Arguments(
            x.data_ptr(),
            None if residual is None else residual.data_ptr(),
            None if also is None else also.data_ptr(),
            weight.data_ptr(),
            bias.data_ptr(),
            partial,
            partial + samples * blocks * 2 * channels * 4,
            voxels,
            rows,
            also_row // 8,
            also_sample // 8,
            channels,
            blocks,
            eps,
            1.0 if negative_slope is None else negative_slope,
        )
        parameters = (Pointer * 1)(ctypes.addressof(arguments))
        stream = self._stream()
        for name, function, grid, threads in (
            ("moments", self._moments, blocks, THREADS),
            ("combine", self._combine, channels, COMBINE_THREADS),
            ("apply", self._apply, apply_blocks, THREADS),
        ):
            result = self._launch(
                function, grid, samples, 1, threads, 1, 1, 0, stream, parameters, None
            )
            check(name, result)
        return x


def _check_dense(name: str, tensor: Tensor, shape: torch.Size) -> None:
    if tensor.dtype != torch.float16 or tensor.shape != shape:
        raise ValueError(f"{name}: must be float16 {tuple(shape)}, is {_describe(tensor)}")
    if not tensor.is_contiguous(memory_format=torch.channels_last_3d):
        raise ValueError(f"{name}: must be dense channels_last_3d, strides are {tensor.stride()}")
    if tensor.data_ptr() % 16:
        raise ValueError(f"{name}: must begin at a multiple of 16 bytes")


def _strides_of_rows(also: Tensor, shape: torch.Size) -> tuple[int, int]:
    """Elements from row to row and from sample to sample; ValueError unless 16-byte stores fit."""
    if also.dtype != torch.float16 or also.shape != shape:
        raise ValueError(f"also: must be float16 {tuple(shape)}, is {_describe(also)}")
    _, _, _, height, width = shape
    sample, channel, plane, line, row = also.stride()
    if (channel, line, plane) != (1, row * width, row * width * height):
        raise ValueError(f"also: its rows must lie at one distance, strides are {also.stride()}")
    if row % 8 or sample % 8 or also.data_ptr() % 16:
        raise ValueError("also: rows must begin at multiples of 16 bytes")
    return row, sample


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
