"""From the scan's voxels to the network's input: transpose, crop, normalise, resample.

The rules and their order are nnU-Net's DefaultPreprocessor. Sections are normalised one at a
time on their way into the resampling, so no float copy of the scan is ever made for CT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.model import ModelConfig, Normalization, Resampling
from app.resample import resample_spline, resample_torch, resampled_shape, separated_axis

Voxels = NDArray[Any]
# Maps (part of a channel's crop as float32, its index in the crop) to normalised values.
Normaliser = Callable[[NDArray[np.float32], Any], NDArray[np.float32]]
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


def preprocess(
    channels: Sequence[Voxels],
    spacing_zyx: Sequence[float],
    config: ModelConfig,
    exact: bool,
    device: torch.device,
) -> tuple[Tensor, Grid]:
    """(z, y, x) voxels of each channel to the network's float32 input (channel, z, y, x).

    ``exact`` resamples in float64 as nnU-Net does; otherwise float32, which differs from it by
    less than 0.001 HU. The result lies on ``device``.
    """
    volumes = [c.transpose(config.transpose) for c in channels]
    spacing = tuple(spacing_zyx[i] for i in config.transpose)
    grid = Grid(volumes[0].shape, nonzero_box(volumes), spacing)
    new_shape = resampled_shape(grid.cropped_shape, spacing, config.spacing)
    if min(new_shape) < 1:
        raise ValueError(
            f"the scan is {grid.cropped_shape} voxels of {spacing} mm, less than one voxel "
            f"of the model's {config.spacing} mm; check the spacing in its header"
        )
    normalisers = normalise(volumes, grid.crop, config.normalization)
    axis = separated_axis(spacing, config.spacing, config.resample_data.force_separate_z)
    dtype = torch.float64 if exact else torch.float32
    resampled = [
        _resample(v[grid.crop], n, new_shape, axis, config.resample_data, dtype, device)
        for v, n in zip(volumes, normalisers, strict=True)
    ]
    return torch.stack(resampled), grid


def _resample(
    volume: Voxels,
    normaliser: Normaliser,
    new_shape: tuple[int, ...],
    axis: int | None,
    resampling: Resampling,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Normalise and resample one channel, section by section along the separated axis if any."""

    def normalised(part: Voxels, index: Any) -> Tensor:
        return torch.from_numpy(normaliser(part.astype(np.float32), index)).to(device)

    if volume.shape == new_shape:
        return normalised(volume, ...)
    if resampling.function == "torch":
        return resample_torch(normalised(volume, ...)[None], new_shape, axis)[0]
    first = axis or 0
    sections = np.moveaxis(volume, first, 0)

    def section(i: int) -> Tensor:
        return normalised(sections[i], (*[slice(None)] * first, i))

    target = [new_shape[first], *(n for i, n in enumerate(new_shape) if i != first)]
    result = resample_spline(
        section, sections.shape, target, resampling.order, axis is not None, dtype, device
    )
    return result.movedim(0, first)


def nonzero_box(volumes: Sequence[Voxels]) -> tuple[slice, ...]:
    """Bounding box of the voxels that are not zero in any channel; all of it if every one is."""
    box = []
    occupied = [v != 0 for v in volumes]
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        line = np.logical_or.reduce([o.any(others) for o in occupied])
        index = np.flatnonzero(line)
        box.append(slice(int(index[0]), int(index[-1]) + 1) if len(index) else slice(0, len(line)))
    return tuple(box)


def normalise(
    volumes: Sequence[Voxels], crop: tuple[slice, ...], schemes: Sequence[Normalization]
) -> list[Normaliser]:
    """One function per channel; statistics of the crop are taken here where a scheme needs them.

    Raises ValueError where nnU-Net's RGB scheme would refuse the values.
    """
    mask = None
    if any(s.scheme == "ZScoreNormalization" and s.use_mask for s in schemes):
        mask = _filled(np.logical_or.reduce([v != 0 for v in volumes]))[crop]
    return [_normaliser(v, crop, s, mask) for v, s in zip(volumes, schemes, strict=True)]


def _normaliser(
    volume: Voxels, crop: tuple[slice, ...], scheme: Normalization, mask: NDArray[np.bool_] | None
) -> Normaliser:
    if scheme.scheme == "NoNormalization":
        return lambda values, index: values
    if scheme.scheme == "CTNormalization":
        return _ct(scheme)
    # A view of the whole float32 scan, as in nnU-Net: NumPy's sums depend on the memory layout.
    values = volume.astype(np.float32)[crop]
    if scheme.scheme == "ZScoreNormalization":
        if scheme.use_mask and mask is not None:
            return _masked_z_score(values[mask], mask)
        return _shift_and_scale(values.mean(), max(values.std(), _EPSILON))
    lowest, highest = values.min(), values.max()
    if scheme.scheme == "RescaleTo01Normalization":
        return _shift_and_scale(lowest, np.clip(highest - lowest, _EPSILON, None))
    if lowest < 0 or highest > 255:
        raise ValueError(f"values of an RGB channel lie in 0..255, found {lowest}..{highest}")
    return _shift_and_scale(None, 255.0)


def _ct(scheme: Normalization) -> Normaliser:
    mean, std = scheme.mean or 0.0, max(scheme.std or 0.0, _EPSILON)  # never None: model checks
    lower, upper = scheme.percentile_00_5, scheme.percentile_99_5

    def ct(values: NDArray[np.float32], index: Any) -> NDArray[np.float32]:
        np.clip(values, lower, upper, out=values)
        values -= mean
        values /= std
        return values

    return ct


def _shift_and_scale(shift: Any, scale: Any) -> Normaliser:
    def shift_and_scale(values: NDArray[np.float32], index: Any) -> NDArray[np.float32]:
        if shift is not None:
            values -= shift
        values /= scale
        return values

    return shift_and_scale


def _masked_z_score(inside: NDArray[np.float32], mask: NDArray[np.bool_]) -> Normaliser:
    if not inside.size:  # a scan of zeros: nnU-Net leaves it so
        return lambda values, index: values
    mean, std = inside.mean(), max(inside.std(), _EPSILON)

    def z_score(values: NDArray[np.float32], index: Any) -> NDArray[np.float32]:
        here = mask[index]
        values[here] = (values[here] - mean) / std
        return values

    return z_score


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes that have no face-connected way to the border (scipy's binary_fill_holes)."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    filled = sitk.BinaryFillhole(image, fullyConnected=False, foregroundValue=1)
    return sitk.GetArrayViewFromImage(filled).astype(bool)
