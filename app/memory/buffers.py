"""How many bytes the stages hold on a device besides the network: arithmetic, nothing is made.

The figures follow the code of the stages, temporaries included; a test compares them with what
is alive while a scan goes through. All buffers are float32 unless it says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.model import ModelConfig
from app.preprocess import has_slabs
from app.resample import BAND, SLAB_SECTIONS, resampled_shape, separated_axis
from app.restore import SLAB_PLANES, SLAB_VOXELS

_HALF, _FLOAT, _DOUBLE = 2, 4, 8
_SECTION = 24  # bytes a voxel of a section: as stored, as float32, under a mask three times more
_DECIDED = 12  # bytes a voxel while logits become a label
_LIKELY = 12  # bytes a voxel and class while they become probabilities
_CHECKED = 7  # bytes a logit while it is looked at whether it is finite


@dataclass(frozen=True)
class WholeInput:
    """The network's input where it is made at once: ``shape`` from ``scan_shape`` (z, y, x).

    ``axis``: the separated one, or the first; ``resampled``: bytes a voxel while it is resampled.
    """

    channels: int
    shape: tuple[int, ...]
    scan_shape: tuple[int, ...]
    axis: int
    like_torch: bool
    resampled: int

    @property
    def held(self) -> int:
        """What it takes when it is there."""
        return _FLOAT * self.channels * math.prod(self.shape)

    @property
    def peak(self) -> int:
        """What it takes while it is made."""
        # One channel: the scan in float32, or resampled across one axis; and the result.
        voxels = math.prod(self.shape)
        half = voxels // self.shape[self.axis] * self.scan_shape[self.axis]
        whole = _FLOAT * (math.prod(self.scan_shape) + half + voxels)
        one = whole if self.like_torch else self.resampled * (half + voxels)
        return self.held + max(self.held, one)


class Buffers(Protocol):
    """Bytes on a device besides the network's, if ``sections`` are preprocessed at a time."""

    def beside_network(self, sections: int = SLAB_SECTIONS) -> int:
        """What is held while the network runs."""

    def without_network(self, sections: int = SLAB_SECTIONS) -> int:
        """The peak while one of the other stages works."""


@dataclass(frozen=True)
class InTurn:
    """Configurations that a scan goes through one after the other."""

    parts: tuple[Buffers, ...]

    def beside_network(self, sections: int = SLAB_SECTIONS) -> int:
        """What the largest holds while its network runs."""
        return max(part.beside_network(sections) for part in self.parts)

    def without_network(self, sections: int = SLAB_SECTIONS) -> int:
        """The largest peak while one of the other stages works."""
        return max(part.without_network(sections) for part in self.parts)


@dataclass(frozen=True)
class Together:
    """Configurations that a scan goes through side by side, plane by plane."""

    parts: tuple[Buffers, ...]

    def beside_network(self, sections: int = SLAB_SECTIONS) -> int:
        """What all hold while a network runs."""
        return sum(part.beside_network(sections) for part in self.parts)

    def without_network(self, sections: int = SLAB_SECTIONS) -> int:
        """The peak while a stage of one works, beside what the others hold."""
        held = [part.beside_network(sections) for part in self.parts]
        more = zip(held, self.parts, strict=True)
        return sum(held) + max(part.without_network(sections) - own for own, part in more)


@dataclass(frozen=True)
class StreamBuffers:
    """A scan that goes through slab by slab; how many slices it has does not come into it.

    ``plane`` is (y, x) on the network's grid, ``scan_plane`` on the scan's;
    ``sections_per_plane``: how many sections of the scan lie on one plane of the network's grid;
    ``filtered``: a lesion filter hands on logits that are a tensor of their own; ``at_once``: the
    input, where it is one slab; ``classes``: of which probabilities are wanted.
    """

    channels: int
    heads: int
    patch: tuple[int, ...]
    plane: tuple[int, ...]
    scan_plane: tuple[int, ...]
    sections_per_plane: float
    filtered: bool = False
    at_once: WholeInput | None = None
    classes: int = 0

    def beside_network(self, sections: int = SLAB_SECTIONS) -> int:
        """What is held while the network runs, if ``sections`` are preprocessed at a time."""
        area = math.prod(self.plane)
        padded = math.prod(max(n, p) for n, p in zip(self.plane, self.patch[1:], strict=True))
        matrices = sum(n * m for n, m in zip(self.plane, self.scan_plane, strict=True))
        # A slab is held as it came from the resampling and as a stack of its channels.
        slab = self.channels * ((self._band(sections) + 2 * sections) * area + matrices)
        preprocess = self.at_once.held // _FLOAT if self.at_once else slab
        sums = (self.channels + self.heads) * self.patch[0] * padded + padded
        # One plane before them and one held back, and what they come from if that is no view.
        restore = self.heads * (SLAB_PLANES * (1 + self.filtered) + 2) * area
        return _FLOAT * (preprocess + sums + math.prod(self.patch) + restore)

    def without_network(self, sections: int = SLAB_SECTIONS) -> int:
        """The peak while one of the other stages works."""
        area, scan_area = math.prod(self.plane), math.prod(self.scan_plane)
        row = self.plane[0] * self.scan_plane[1]
        slab = 2 * self.channels * sections * area + row + sections * self._band(sections)
        preprocess = _FLOAT * slab + _SECTION * scan_area
        finite = _CHECKED * self.heads * SLAB_PLANES * area
        foreground = (self.heads + 2 * _FLOAT) * (SLAB_PLANES + 1) * area
        restore = foreground + _interpolating(self.heads, self.classes, self.plane, self.scan_plane)
        beside = self.beside_network(sections)
        if self.at_once is not None:
            return max(self.at_once.peak, beside + max(finite, restore))
        return beside + max(preprocess, finite, restore)

    def _band(self, sections: int) -> int:
        """Sections that a slab needs; a scan's own ratio can be larger by rounding its length."""
        if self.patch[0] == 1:  # of two dimensions: nothing is resampled across sections
            return sections
        return sections + math.ceil(2.25 * self.sections_per_plane) + 2 * BAND + 5


@dataclass(frozen=True)
class WholeBuffers:
    """A scan in nnU-Net's own arithmetic: all of it, logits summed in float16."""

    heads: int
    members: int
    patch: tuple[int, ...]
    input: WholeInput

    def beside_network(self, sections: int = SLAB_SECTIONS) -> int:
        """What is held while the network runs: input, sums, and sums of the member before."""
        del sections
        padded = self._padded
        grown = (
            0 if padded == math.prod(self.input.shape) else _FLOAT * self.input.channels * padded
        )
        sums = self.heads * min(self.members, 2) + 1
        return self.input.held + grown + _HALF * (sums * padded + math.prod(self.patch))

    def without_network(self, sections: int = SLAB_SECTIONS) -> int:
        """The peak while one of the other stages works; logits are restored on the host."""
        del sections
        finite = _CHECKED * self.heads * SLAB_PLANES * math.prod(self.input.shape[1:])
        return max(self.input.peak, _HALF * self.heads * self._padded + finite)

    @property
    def _padded(self) -> int:
        return math.prod(max(n, p) for n, p in zip(self.input.shape, self.patch, strict=True))


def stream_buffers(
    shape: Sequence[int],
    spacing: Sequence[float],
    config: ModelConfig,
    heads: int,
    probabilities: bool,
) -> StreamBuffers:
    """For a scan of ``shape`` voxels of ``spacing`` mm, axes in the network's order.

    ``probabilities``: labels are made of them. A crop to what is not zero can only make it less.
    """
    target = config.spacing_on(spacing)
    plane = resampled_shape(shape, spacing, target)[1:]
    ratio = target[0] / spacing[0]
    counts, filtered = (config.network.input_channels, heads), config.lesion_filter is not None
    axis = separated_axis(spacing, target, config.resample_data.force_separate_z)
    at_once = None if has_slabs(axis) else _whole_input(shape, spacing, config, _FLOAT)
    classes = len(config.labels) if probabilities else 0
    return StreamBuffers(
        *counts, config.patch_size, plane, tuple(shape[1:]), ratio, filtered, at_once, classes
    )


def whole_buffers(
    shape: Sequence[int], spacing: Sequence[float], config: ModelConfig, heads: int
) -> WholeBuffers:
    """The same for nnU-Net's own arithmetic."""
    whole = _whole_input(shape, spacing, config, _DOUBLE)
    return WholeBuffers(heads, len(config.members), config.patch_size, whole)


def _whole_input(
    shape: Sequence[int], spacing: Sequence[float], config: ModelConfig, resampled: int
) -> WholeInput:
    target = config.spacing_on(spacing)
    grid = tuple(max(n, 1) for n in resampled_shape(shape, spacing, target))
    axis = separated_axis(spacing, target, config.resample_data.force_separate_z) or 0
    like_torch = config.resample_data.function == "torch"
    return WholeInput(
        config.network.input_channels, grid, tuple(shape), axis, like_torch, resampled
    )


def _interpolating(
    heads: int, classes: int, plane: Sequence[int], scan_plane: Sequence[int]
) -> int:
    """Bytes while some planes of logits are brought to the scan's grid, one axis after another."""
    (y, x), (rows, columns) = plane, scan_plane
    planes, fine = max(SLAB_VOXELS / (max(heads, classes) * rows * columns), 1), rows * columns
    mixed = _FLOAT * heads * max(3 * y * x, y * x + 3 * rows * x, rows * x + 3 * fine)
    decided = _LIKELY * classes or _DECIDED
    return math.ceil(planes * max(mixed, (_FLOAT * heads + decided) * fine))
