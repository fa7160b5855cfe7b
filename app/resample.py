"""nnU-Net's resampling rules and the arithmetic behind them, arrays in and arrays out.

nnU-Net resamples with ``scipy.ndimage.zoom(mode="nearest", grid_mode=True)``. A spline zoom is
linear and separable, so for the image it is one small matrix per axis; for the logits (order 1)
it is a weighted sum of eight neighbours. Both are written here in the form that a GPU likes, and
the logits also in scipy's exact order of operations, which decides ties in float16.

A row of a spline's matrix fades by 0.27 per sample away from its centre, so that a slab of the
result needs a band of sections only: ``resample_slabs`` never holds more of a scan than that.

Axes: volumes are (channel, z, y, x) in the network's order; "the separated axis" is the one that
nnU-Net resamples by nearest neighbour when voxels are more than three times longer along it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

ANISOTROPY_THRESHOLD = 3  # nnU-Net's ANISO_THRESHOLD
_SPLINE_PADDING = 12  # scipy pads by this before the spline filter when mode is "nearest"
# Samples on either side of a cubic spline's four that still count: what the pole leaves beyond
# them is 0.27**16 = 7e-10 of a sample, a hundredth of float32's rounding.
BAND = 16
SLAB_SECTIONS = 16  # read, and made, between two slabs


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, ...]:
    """Shape at ``new_spacing`` (mm); nnU-Net's order of operations, rounding half to even."""
    return tuple(
        round(old / new * n) for old, new, n in zip(spacing, new_spacing, shape, strict=True)
    )


def separated_axis(
    spacing: Sequence[float], new_spacing: Sequence[float], force: bool | None
) -> int | None:
    """The axis to resample by nearest neighbour, or None (nnU-Net: determine_do_sep_z_and_axis).

    ``force`` is the plans' ``force_separate_z``: None decides by anisotropy, of the current
    spacing first.
    """
    if force is False:
        return None
    for candidate in (spacing, new_spacing):
        if force or max(candidate) / min(candidate) > ANISOTROPY_THRESHOLD:
            longest = [i for i, s in enumerate(candidate) if max(candidate) / s == 1]
            return longest[0] if len(longest) == 1 else None
    return None


@dataclass(frozen=True)
class Taps:
    """Linear interpolation along one axis.

    Output i is ``input[low[i]] * low_weight[i] + input[high[i]] * high_weight[i]``; the weights
    are None for nearest neighbour, which reads ``low`` alone.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    low_weight: NDArray[np.float64] | None
    high_weight: NDArray[np.float64] | None

    def part(self, outputs: slice, offset: int = 0) -> Taps:
        """Taps of some outputs, on an input whose first ``offset`` samples were cut away."""
        return Taps(
            self.low[outputs] - offset,
            self.high[outputs] - offset,
            None if self.low_weight is None else self.low_weight[outputs],
            None if self.high_weight is None else self.high_weight[outputs],
        )


def _coordinates(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Where the centres of the output samples lie on the input, in samples."""
    return (np.arange(n_out, dtype=np.float64) + 0.5) * (n_in / n_out) - 0.5


def _torch_coordinates(n_in: int, n_out: int) -> NDArray[np.float64]:
    """The same as ``F.interpolate`` has them: rounded to float32, never before the first sample."""
    scale = np.float64(np.float32(n_in) / np.float32(n_out))
    c = scale * (np.arange(n_out, dtype=np.float64) + 0.5) - 0.5
    return np.maximum(c.astype(np.float32), np.float32(0)).astype(np.float64)


def linear_taps(n_in: int, n_out: int) -> Taps:
    """Taps of scipy's order-1 zoom (the same as torch's with align_corners=False).

    As in scipy, a sample beyond the edge is read from the edge but keeps its weight, and the
    second weight is the rest to one: both show in the last bit.
    """
    return _linear(_coordinates(n_in, n_out), n_in)


def _linear(c: NDArray[np.float64], n: int) -> Taps:
    low = np.floor(c).astype(np.int64)
    low_weight = 1 - (c - low)
    inside = 0, n - 1
    return Taps(np.clip(low, *inside), np.clip(low + 1, *inside), low_weight, 1 - low_weight)


def nearest_taps(n_in: int, n_out: int) -> Taps:
    """Taps of nnU-Net's order-0 resampling across the separated axis (map_coordinates, order 0)."""
    c = (n_in / n_out) * (np.arange(n_out, dtype=np.float64) + 0.5) - 0.5
    index = np.clip(np.floor(c + 0.5), 0, n_in - 1).astype(np.int64)
    return Taps(index, index, None, None)


def _torch_nearest(n_in: int, n_out: int) -> NDArray[np.int64]:
    """The samples that ``F.interpolate(mode="nearest-exact")`` reads; it computes in float32."""
    scale, half = np.float32(n_in) / np.float32(n_out), np.float32(0.5)
    index: NDArray[np.float32] = np.floor((np.arange(n_out, dtype=np.float32) + half) * scale)
    return index.astype(np.int64).clip(max=n_in - 1)


@dataclass(frozen=True)
class Sampling:
    """Which interpolation: a spline of ``order`` 1 or 3 as scipy's, or torch's linear one."""

    order: int
    like_torch: bool = False

    def matrix(
        self, n_in: int, n_out: int, outputs: slice | None = None
    ) -> tuple[slice, NDArray[np.float64]]:
        """The inputs that some outputs (None: all) need and their (outputs, inputs) weights.

        Those of a spline are what scipy's ``zoom(mode="nearest", grid_mode=True)`` does on an axis.
        Cubic: the input is padded by its edge, turned into B-spline coefficients (Unser's recursive
        filter with scipy's "reflect" start) and evaluated at four neighbours. What lies beyond
        ``BAND`` is added to the outermost input, so rows still sum to one.
        """
        like = _torch_coordinates if self.like_torch else _coordinates
        c = like(n_in, n_out)
        if outputs is None:
            return slice(0, n_in), _rows(c, n_in, self.order)
        c = c[outputs]
        reach = BAND if self.order == 3 else 0
        first = max(math.floor(c[0]) - 1 - reach, 0)
        last = min(math.floor(c[-1]) + 3 + reach, n_in)
        return slice(first, last), _rows(c - first, last - first, self.order)

    def nearest(self, n_in: int, n_out: int) -> NDArray[np.int64]:
        """The input of each output, across the separated axis."""
        return _torch_nearest(n_in, n_out) if self.like_torch else nearest_taps(n_in, n_out).low


def _rows(c: NDArray[np.float64], n: int, order: int) -> NDArray[np.float64]:
    """(len(c), n) matrix that evaluates the spline through n samples at the coordinates c."""
    matrix = np.zeros((len(c), n))
    if order == 1:
        taps = _linear(c, n)
        rows = np.arange(len(c))
        for index, weight in ((taps.low, taps.low_weight), (taps.high, taps.high_weight)):
            assert weight is not None
            matrix[rows, index] += weight
        return matrix
    coefficients = np.pad(np.eye(n), ((_SPLINE_PADDING, _SPLINE_PADDING), (0, 0)), mode="edge")
    _cubic_filter(coefficients)
    c = c + _SPLINE_PADDING
    start = np.floor(c).astype(np.int64) - 1
    y = c - np.floor(c)
    z = 1 - y
    w1 = (y * y * (y - 2) * 3 + 4) / 6
    w2 = (z * z * (z - 2) * 3 + 4) / 6
    w0 = z * z * z / 6
    weights = np.stack((w0, w1, w2, 1 - w0 - w1 - w2), 1)
    for k in range(4):
        matrix += weights[:, k : k + 1] * coefficients[start + k]
    return matrix


def _cubic_filter(c: NDArray[np.float64]) -> None:
    """Samples to cubic B-spline coefficients along axis 0, in place (scipy's ni_splines.c)."""
    n, pole = len(c), math.sqrt(3.0) - 2.0
    c *= (1 - pole) * (1 - 1 / pole)
    first, power = c[0].copy(), pole
    pole_n = pole**n
    c[0] += pole_n * c[n - 1]
    for i in range(1, n):
        c[0] += power * (c[i] + pole_n * c[n - 1 - i])
        power *= pole
    c[0] *= pole / (1 - pole_n * pole_n)
    c[0] += first
    for i in range(1, n):
        c[i] += pole * c[i - 1]
    c[n - 1] *= pole / (pole - 1)
    for i in range(n - 2, -1, -1):
        c[i] = pole * (c[i + 1] - c[i])


def resample_spline(
    sections: Callable[[int], Tensor],
    shape: Sequence[int],
    new_shape: Sequence[int],
    order: int,
    separated: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Resample one channel that is given section by section along its first axis.

    ``sections(i)`` is the (n1, n2) float32 section i of ``shape`` (n0, n1, n2) on ``device``;
    asking for one at a time spares a float copy of the whole scan. ``separated``: the first axis
    is the separated one. Arithmetic is in ``dtype``; values are clipped to the input's range, of
    each section when separated, as nnU-Net does. Returns float32 of ``new_shape``.
    """
    n0, *plane = shape
    m0, *new_plane = new_shape
    sampling = Sampling(order)
    in_plane = _in_plane(plane, new_plane, sampling, separated, dtype, device)
    stack = torch.empty((n0, *new_plane), dtype=dtype, device=device)
    lowest, highest = math.inf, -math.inf
    for i in range(n0):
        section = sections(i)
        low, high = (float(v) for v in torch.aminmax(section))
        lowest, highest = min(lowest, low), max(highest, high)
        in_plane(section, stack[i])
    if n0 == m0 and separated:
        return stack.float()
    if separated:
        return stack[torch.from_numpy(sampling.nearest(n0, m0)).to(device)].float()
    across = torch.from_numpy(sampling.matrix(n0, m0)[1]).to(device, dtype)
    result = torch.empty((m0, *new_plane), dtype=torch.float32, device=device)
    for row in range(new_plane[0]):  # row by row: no second full-size array in `dtype`
        result[:, row] = (across @ stack[:, row]).clamp_(lowest, highest)
    return result


def resample_slabs(
    sections: Callable[[int], Tensor],
    shape: Sequence[int],
    new_shape: Sequence[int],
    sampling: Sampling,
    separated: bool,
    limits: tuple[float, float] | None,
    device: torch.device,
    at_a_time: int = SLAB_SECTIONS,
) -> Iterator[Tensor]:
    """Resample one channel in float32, given and made section by section along its first axis.

    As ``resample_spline`` (within float32's rounding) or ``resample_torch``; ``limits`` clip the
    result, as the range of the whole input cannot be known on the way. Yields the result in order
    in slabs that are new tensors: at most ``at_a_time`` planes, of about as many new sections at
    most. Asks for a section at most once, in order.
    """
    n0, *plane = shape
    m0, *new_plane = new_shape
    in_plane = _in_plane(plane, new_plane, sampling, separated, torch.float32, device)
    depth = min(max(round(at_a_time * m0 / n0), 1), at_a_time)
    bands = [
        _band(n0, m0, sampling, separated, slice(start, min(start + depth, m0)))
        for start in range(0, m0, depth)
    ]
    held = torch.empty((max(len(i) for i, _ in bands), *new_plane), device=device)
    first = known = 0  # section `first` lies at the front; those before `known` have been asked for
    for inputs, weights in bands:
        advance(held, inputs.start - first)
        first = inputs.start
        for i in range(max(known, first), inputs.stop):
            in_plane(sections(i), held[i - first])
        known = inputs.stop
        if weights.ndim == 1:
            slab = held[torch.from_numpy(weights).to(device)]
        else:
            across = torch.from_numpy(weights).to(device, torch.float32)
            slab = (across @ held[: len(inputs)].flatten(1)).unflatten(1, new_plane)
        yield slab if limits is None else slab.clamp_(*limits)


def _band(
    n_in: int, n_out: int, sampling: Sampling, separated: bool, outputs: slice
) -> tuple[range, NDArray[Any]]:
    """The sections that some planes need, and a matrix for them or an index for each plane."""
    if separated or n_in == n_out:
        index = np.arange(n_in) if n_in == n_out else sampling.nearest(n_in, n_out)
        index = index[outputs]
        return range(int(index[0]), int(index[-1]) + 1), index - index[0]
    inputs, weights = sampling.matrix(n_in, n_out, outputs)
    return range(inputs.start, inputs.stop), weights


def _in_plane(
    plane: Sequence[int],
    new_plane: Sequence[int],
    sampling: Sampling,
    separated: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Callable[[Tensor, Tensor], None]:
    """A function (section, out) that resamples a section, within its own range if separated."""
    same = list(plane) == list(new_plane)
    rows, columns = (
        torch.from_numpy(sampling.matrix(i, o)[1]).to(device, dtype)
        for i, o in zip(plane, new_plane, strict=True)
    )

    def resize(section: Tensor, out: Tensor) -> None:
        if same:
            out.copy_(section)
            return
        torch.matmul(rows @ section.to(dtype), columns.T, out=out)
        if separated and not sampling.like_torch:
            low, high = torch.aminmax(section)
            out.clamp_(low.to(dtype), high.to(dtype))

    return resize


def advance(planes: Tensor, by: int) -> None:
    """Move planes to the front of the first axis, in place; the last ``by`` keep their content."""
    for start in range(0, len(planes) - by, by or len(planes)):
        stop = min(start + by, len(planes) - by)  # blocks that do not overlap
        planes[start:stop] = planes[start + by : stop + by]


def resample_torch(volume: Tensor, new_shape: Sequence[int], axis: int | None) -> Tensor:
    """nnU-Net's ``resample_torch_fornnunet``: (channel, z, y, x) to float32 of ``new_shape``.

    Trilinear, or bilinear in plane and nearest-exact across the separated ``axis``; the same
    calls, so the same rounding.
    """
    if tuple(volume.shape[1:]) == tuple(new_shape):
        return volume
    if axis is None:
        return F.interpolate(volume[None].float(), tuple(new_shape), mode="trilinear")[0]
    planes = volume.movedim(axis + 1, 1)  # (channel, separated, a, b)
    size = [n for i, n in enumerate(new_shape) if i != axis]
    if list(planes.shape[2:]) != size:
        flat = F.interpolate(planes.flatten(0, 1)[None].float(), size, mode="bilinear")[0]
        planes = flat.unflatten(0, planes.shape[:2])
    volume = planes.movedim(1, axis + 1)
    if tuple(volume.shape[1:]) == tuple(new_shape):
        return volume
    return F.interpolate(volume[None].float(), tuple(new_shape), mode="nearest-exact")[0]


def mix_linear(volume: Tensor, taps: Sequence[Taps]) -> Tensor:
    """Interpolate (channel, z, y, x) along its three axes, first axis first, in its own dtype."""
    for axis, t in enumerate(taps, start=1):
        low = volume.index_select(axis, _index(t.low, volume))
        if t.high_weight is not None:
            high = volume.index_select(axis, _index(t.high, volume))
            low = torch.lerp(low, high, _weight(t.high_weight, axis, volume))
        volume = low
    return volume


def mix_linear_like_scipy(volume: Tensor, taps: Sequence[Taps]) -> Tensor:
    """The same in float64 and in the order of operations of scipy's ``zoom(order=1)``.

    scipy multiplies a sample by its weight of each axis in turn and adds the eight (with a
    nearest axis: four) products, last axis fastest. Averages of float16 logits often lie exactly
    between two float16 values, so the last bit of this sum decides how they round.
    """
    volume = volume.double()

    def along(part: Tensor, axis: int) -> list[Tensor]:
        t = taps[axis - 1]
        low = part.index_select(axis, _index(t.low, part))
        if t.low_weight is None or t.high_weight is None:
            return [low]
        high = part.index_select(axis, _index(t.high, part))
        return [low * _weight(t.low_weight, axis, part), high * _weight(t.high_weight, axis, part)]

    parts = (x for z in along(volume, 1) for y in along(z, 2) for x in along(y, 3))
    total = next(parts)
    for part in parts:
        total = total.add_(part)
    return total


def _index(index: NDArray[np.int64], like: Tensor) -> Tensor:
    return torch.from_numpy(index).to(like.device)


def _weight(weight: NDArray[np.float64], axis: int, like: Tensor) -> Tensor:
    shape = [-1 if i == axis else 1 for i in range(4)]
    return torch.from_numpy(weight).to(like.device, like.dtype).view(shape)
