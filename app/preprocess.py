"""From the scan's voxels to the network's input: transpose, crop, normalise, resample.

The rules and their order are nnU-Net's DefaultPreprocessor. Sections are normalised one at a
time on their way into the resampling, so no float copy of the scan is ever made for CT.
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

from app.crop import body_box, nonzero_box
from app.model import ModelConfig, Normalization
from app.resample import (
    SLAB_SECTIONS,
    Sampling,
    resample_slabs,
    resample_spline,
    resample_torch,
    resampled_shape,
    separated_axis,
)
from volumes.grid import MOST_VOXELS

Voxels = NDArray[Any]
_EPSILON = 1e-8  # nnU-Net's floor of a standard deviation or a range


@dataclass(frozen=True)
class Grid:
    """What it takes to put a label map back on the scan; axes in the network's order."""

    shape: tuple[int, ...]  # before the crop
    crop: tuple[slice, ...]
    spacing: tuple[float, ...]  # mm

    @property
    def cropped_shape(self) -> tuple[int, ...]:
        """Shape of the crop."""
        return tuple(s.stop - s.start for s in self.crop)


@dataclass(frozen=True)
class Normaliser:
    """(values - shift) / scale after a clip; each step only where it is not None.

    ``mask``: of the crop; the values outside of it stay as they are.
    """

    lower: float | None = None
    upper: float | None = None
    shift: float | None = None
    scale: float | None = None
    mask: NDArray[np.bool_] | None = None

    def __call__(self, values: Tensor, index: Any) -> Tensor:
        """Normalise float32 values, which lie at ``index`` in the crop; they may be changed."""
        if self.mask is not None:
            inside = torch.from_numpy(self.mask[index]).to(values.device)
            return torch.where(inside, self._unmasked(values.clone()), values)
        return self._unmasked(values)

    def _unmasked(self, values: Tensor) -> Tensor:
        if self.lower is not None or self.upper is not None:
            values.clamp_(self.lower, self.upper)
        if self.shift is not None:
            values.sub_(self.shift)
        if self.scale is not None:
            values.div_(self.scale)
        return values


@dataclass(frozen=True)
class Prepared:
    """A scan on its way to the network, axes in the network's order: nothing computed yet.

    ``volumes`` are the crops of the channels, views of the caller's voxels; ``clips`` the ranges
    that a spline must not leave; ``shape`` is that of the network's input; ``axis`` is the
    separated one; ``more`` gives planes of further channels, of a cascade, on a device.
    """

    volumes: list[Voxels]
    normalisers: list[Normaliser]
    clips: list[tuple[float, float] | None]
    grid: Grid
    shape: tuple[int, ...]
    axis: int | None
    more: Callable[[slice, torch.device], list[Tensor]] = lambda planes, device: []


def prepare(
    channels: Sequence[Voxels],
    spacing_zyx: Sequence[float],
    config: ModelConfig,
    exact: bool,
    body: bool,
) -> Prepared:
    """What must be known of (z, y, x) voxels of each channel before the first is computed.

    ``exact`` takes means and deviations with NumPy's float32 rounding as nnU-Net does, on a float
    copy of the scan; otherwise in float64, section by section. ``body`` crops a CT to the body, not
    to what is not zero. Raises ValueError.
    """
    volumes = [c.transpose(config.transpose) for c in channels]
    spacing = tuple(spacing_zyx[i] for i in config.transpose)
    crop = body_box(volumes[0]) if body else nonzero_box(volumes)
    grid = Grid(volumes[0].shape, crop, spacing)
    target = config.spacing_on(spacing)
    new_shape = resampled_shape(grid.cropped_shape, spacing, target)
    if min(new_shape) < 1:
        raise ValueError(
            f"the scan is {grid.cropped_shape} voxels of {spacing} mm, less than one voxel "
            f"of the model's {target} mm; check the spacing in its header"
        )
    if math.prod(new_shape) > MOST_VOXELS:
        raise ValueError(
            f"at the model's {target} mm the scan has {new_shape} voxels, more than "
            f"{MOST_VOXELS}; check the spacing in its header"
        )
    normalisers = normalise(volumes, grid.crop, config.normalization, exact)
    axis = separated_axis(spacing, target, config.resample_data.force_separate_z)
    crops = [v[grid.crop] for v in volumes]
    clips: list[tuple[float, float] | None] = [None for _ in crops]
    # Otherwise each section is clipped to its own range, or nothing is.
    if not exact and axis is None and config.resample_data.function != "torch":
        clips = [limits(v, n) for v, n in zip(crops, normalisers, strict=True)]
    return Prepared(crops, normalisers, clips, grid, new_shape, axis)


def preprocess(
    scan: Prepared, config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The network's whole float32 input (channel, z, y, x) on ``device``.

    ``dtype`` is what is resampled in: nnU-Net's own is float64; float32 differs from it by less
    than 0.001 HU.
    """
    resampled = [
        _resample(v, n, scan, config, dtype, device)
        for v, n in zip(scan.volumes, scan.normalisers, strict=True)
    ]
    return torch.stack([*resampled, *scan.more(slice(None), device)])


def preprocess_slabs(
    scan: Prepared, config: ModelConfig, device: torch.device, at_a_time: int = SLAB_SECTIONS
) -> Iterator[Tensor]:
    """The same in float32, in slabs (channel, planes, y, x) that follow each other along z.

    Sections go to ``device`` as they are stored and become float32 there. Only a band of sections
    is held, whatever the length of the scan; ``at_a_time`` of them are new in a slab. (All is in
    one slab where the separated axis is not the first: then each section reaches through all
    planes, and is clipped to its own range, which is known only when all of it has been seen.)
    ``device`` is first touched when a slab is asked for.
    """
    if not has_slabs(scan.axis):
        return (preprocess(scan, config, torch.float32, device) for _ in range(1))
    resampling = config.resample_data
    like_torch = resampling.function == "torch"
    sampling = Sampling(1 if like_torch else resampling.order, like_torch)
    separated = scan.axis is not None

    def slabs(
        volume: Voxels, normaliser: Normaliser, clip: tuple[float, float] | None
    ) -> Iterator[Tensor]:
        def section(i: int) -> Tensor:
            return normaliser(_float32(volume[i], device), i)

        shapes = volume.shape, scan.shape
        return resample_slabs(section, *shapes, sampling, separated, clip, device, at_a_time)

    given = zip(scan.volumes, scan.normalisers, scan.clips, strict=True)
    channels = [slabs(*channel) for channel in given]
    return _stacked(zip(*channels, strict=True), scan, device)


def _stacked(
    channels: Iterator[tuple[Tensor, ...]], scan: Prepared, device: torch.device
) -> Iterator[Tensor]:
    """Slabs of each channel (planes, y, x) as slabs of all, those of a cascade among them."""
    done = 0
    for parts in channels:
        planes = slice(done, done + len(parts[0]))
        yield torch.stack([*parts, *scan.more(planes, device)])
        done = planes.stop


def has_slabs(axis: int | None) -> bool:
    """Whether a scan with this separated axis is preprocessed slab by slab."""
    return axis in (None, 0)


def _resample(
    volume: Voxels,
    normaliser: Normaliser,
    scan: Prepared,
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Normalise and resample one channel, section by section along the separated axis if any."""
    resampling = config.resample_data

    def normalised(part: Voxels, index: Any) -> Tensor:
        return normaliser(_float32(part, torch.device("cpu")), index).to(device)

    if volume.shape == scan.shape:
        return normalised(volume, ...)
    if resampling.function == "torch":
        return resample_torch(normalised(volume, ...)[None], scan.shape, scan.axis)[0]
    first = scan.axis or 0
    sections = np.moveaxis(volume, first, 0)

    def section(i: int) -> Tensor:
        return normalised(sections[i], (*[slice(None)] * first, i))

    target = [scan.shape[first], *(n for i, n in enumerate(scan.shape) if i != first)]
    separated = scan.axis is not None
    result = resample_spline(
        section, sections.shape, target, resampling.order, separated, dtype, device
    )
    return result.movedim(0, first)


def _float32(voxels: Voxels, device: torch.device) -> Tensor:
    """A float32 copy on ``device``."""
    if min(voxels.strides) < 0:  # of an axis that is read backwards, which torch does not have
        voxels = voxels.copy()
    return torch.from_numpy(voxels).to(device).to(torch.float32, copy=True)


def limits(volume: Voxels, normaliser: Normaliser) -> tuple[float, float]:
    """The least and the greatest normalised value, found section by section."""
    if normaliser.mask is not None:  # not monotone
        cpu = torch.device("cpu")
        ranges = [normaliser(_float32(s, cpu), i).aminmax() for i, s in enumerate(volume)]
        return min(float(r.min) for r in ranges), max(float(r.max) for r in ranges)
    low, high = normaliser(torch.tensor(_range(volume), dtype=torch.float32), ...).tolist()
    return low, high


def _range(volume: Voxels) -> tuple[float, float]:
    return float(min(s.min() for s in volume)), float(max(s.max() for s in volume))


def normalise(
    volumes: Sequence[Voxels],
    crop: tuple[slice, ...],
    schemes: Sequence[Normalization],
    exact: bool,
) -> list[Normaliser]:
    """One normaliser per channel; statistics of the crop are taken where a scheme needs them.

    Raises ValueError where nnU-Net's RGB scheme would refuse the values.
    """
    mask = None
    if any(s.scheme == "ZScoreNormalization" and s.use_mask for s in schemes):
        mask = filled(np.logical_or.reduce([v != 0 for v in volumes]))[crop]
    return [_normaliser(v, crop, s, mask, exact) for v, s in zip(volumes, schemes, strict=True)]


def _normaliser(
    volume: Voxels,
    crop: tuple[slice, ...],
    scheme: Normalization,
    mask: NDArray[np.bool_] | None,
    exact: bool,
) -> Normaliser:
    if scheme.scheme == "NoNormalization":
        return Normaliser()
    if scheme.scheme == "CTNormalization":
        mean, std = scheme.mean or 0.0, max(scheme.std or 0.0, _EPSILON)  # never None: model checks
        return Normaliser(scheme.percentile_00_5, scheme.percentile_99_5, mean, std)
    if scheme.scheme == "ZScoreNormalization":
        used = mask if scheme.use_mask else None
        mean, std = (_moments_like_nnunet if exact else _moments)(volume, crop, used)
        if math.isnan(mean):  # a scan of zeros: nnU-Net leaves it so
            return Normaliser()
        return Normaliser(shift=mean, scale=max(std, _EPSILON), mask=used)
    lowest, highest = (np.float32(v) for v in _range(volume[crop]))
    if scheme.scheme == "RescaleTo01Normalization":
        return Normaliser(shift=float(lowest), scale=max(float(highest - lowest), _EPSILON))
    if lowest < 0 or highest > 255:
        raise ValueError(f"values of an RGB channel lie in 0..255, found {lowest}..{highest}")
    return Normaliser(scale=255.0)


def _moments_like_nnunet(
    volume: Voxels, crop: tuple[slice, ...], mask: NDArray[np.bool_] | None
) -> tuple[float, float]:
    """Mean and standard deviation of the crop, inside the mask, rounded as in nnU-Net."""
    # A view of the whole float32 scan, as in nnU-Net: NumPy's sums depend on the memory layout.
    values = volume.astype(np.float32)[crop]
    inside = values if mask is None else values[mask]
    if not inside.size:
        return math.nan, math.nan
    return float(inside.mean()), float(inside.std())


def _moments(
    volume: Voxels, crop: tuple[slice, ...], mask: NDArray[np.bool_] | None
) -> tuple[float, float]:
    """The same in float64, section by section."""

    def sections() -> Iterator[NDArray[np.float64]]:
        for i, section in enumerate(volume[crop]):
            yield (section if mask is None else section[mask[i]]).astype(np.float64)

    count = sum(s.size for s in sections())
    if not count:
        return math.nan, math.nan
    mean = sum(float(s.sum()) for s in sections()) / count
    return mean, math.sqrt(sum(float(np.square(s - mean).sum()) for s in sections()) / count)


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes that have no face-connected way to the border (scipy's binary_fill_holes)."""
    from app.components import connected  # cc3d takes time, and few models need it

    outside, count = connected(~mask, 6)
    inside = np.ones(count + 1, bool)
    for axis in range(mask.ndim):
        for face in (0, -1):
            inside[outside.take(face, axis)] = False
    inside[0] = True  # the mask itself
    filled: NDArray[np.bool_] = inside[outside]
    return filled
