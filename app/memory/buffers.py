"""How many bytes the stages hold on a device besides the network: arithmetic, nothing is made.

The figures follow the code of the stages, temporaries included; a test compares them with what
is alive while a scan goes through. All buffers are float32 unless it says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from app.model import ModelConfig
from app.resample import BAND, SLAB_SECTIONS, resampled_shape, separated_axis
from app.restore import SLAB_PLANES, SLAB_VOXELS

_FLOAT = 4
_SECTION = 24  # bytes a voxel of a section: as stored, as float32, under a mask three times more
_DECIDED = 12  # bytes a voxel while logits become a label
_CHECKED = 7  # bytes a logit while it is looked at whether it is finite


@dataclass(frozen=True)
class StreamBuffers:
    """A scan that goes through slab by slab; how many slices it has does not come into it.

    ``plane`` is (y, x) on the network's grid, ``scan_plane`` on the scan's;
    ``sections_per_plane``: how many sections of the scan lie on one plane of the network's grid;
    ``filtered``: a lesion filter hands on logits that are a tensor of their own.
    """

    channels: int
    heads: int
    patch: tuple[int, ...]
    plane: tuple[int, ...]
    scan_plane: tuple[int, ...]
    sections_per_plane: float
    filtered: bool = False

    def beside_network(self, sections: int = SLAB_SECTIONS) -> int:
        """What is held while the network runs, if ``sections`` are preprocessed at a time."""
        area = math.prod(self.plane)
        padded = math.prod(max(n, p) for n, p in zip(self.plane, self.patch[1:], strict=True))
        matrices = sum(n * m for n, m in zip(self.plane, self.scan_plane, strict=True))
        # A slab is held as it came from the resampling and as a stack of its channels.
        preprocess = self.channels * ((self._band(sections) + 2 * sections) * area + matrices)
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
        restore = foreground + _interpolating(self.heads, self.plane, self.scan_plane)
        return self.beside_network(sections) + max(preprocess, finite, restore)

    def _band(self, sections: int) -> int:
        """Sections that a slab needs; a scan's own ratio can be larger by rounding its length."""
        return sections + math.ceil(2.25 * self.sections_per_plane) + 2 * BAND + 5


@dataclass(frozen=True)
class WholeBuffers:
    """A scan that has to be there at once; shapes as above, with the first axis.

    ``exact``: resampled in float64, logits summed in float16 and restored on the host.
    """

    channels: int
    heads: int
    members: int
    patch: tuple[int, ...]
    shape: tuple[int, ...]
    scan_shape: tuple[int, ...]
    axis: int  # the separated one, or the first
    like_torch: bool
    exact: bool

    def beside_network(self, sections: int = SLAB_SECTIONS) -> int:
        """What is held while the network runs: input, sums, and sums of the member before."""
        del sections
        voxels, padded = math.prod(self.shape), self._padded
        volume = self.channels * (padded if padded == voxels else padded + voxels)
        sums = self.heads * min(self.members, 2) + 1
        return _FLOAT * volume + self._sum * (sums * padded + math.prod(self.patch))

    def without_network(self, sections: int = SLAB_SECTIONS) -> int:
        """The peak while one of the other stages works."""
        del sections
        volume = self.channels * math.prod(self.shape) * _FLOAT
        dtype = 2 * _FLOAT if self.exact else _FLOAT
        voxels = math.prod(self.shape)
        # One channel: the scan in float32, or resampled across one axis; and the result.
        half = voxels // self.shape[self.axis] * self.scan_shape[self.axis]
        whole = _FLOAT * (math.prod(self.scan_shape) + half + voxels)
        preprocess = volume + max(volume, whole if self.like_torch else dtype * (half + voxels))
        finite = _CHECKED * self.heads * SLAB_PLANES * math.prod(self.shape[1:])
        decided = 0
        if not self.exact:
            planes = self.shape[1:], self.scan_shape[1:]
            decided = voxels * (self.heads + _DECIDED) + _interpolating(self.heads, *planes)
        after = self.heads * self._padded * self._sum + max(finite, decided)
        return max(preprocess, after)

    @property
    def _padded(self) -> int:
        return math.prod(max(n, p) for n, p in zip(self.shape, self.patch, strict=True))

    @property
    def _sum(self) -> int:
        return _FLOAT // 2 if self.exact else _FLOAT


def stream_buffers(
    shape: Sequence[int], spacing: Sequence[float], config: ModelConfig, heads: int
) -> StreamBuffers:
    """For a scan of ``shape`` voxels of ``spacing`` mm, axes in the network's order.

    A crop to what is not zero can only make it less.
    """
    plane = resampled_shape(shape, spacing, config.spacing)[1:]
    ratio = config.spacing[0] / spacing[0]
    counts, filtered = (len(config.channels), heads), config.lesion_filter is not None
    return StreamBuffers(*counts, config.patch_size, plane, tuple(shape[1:]), ratio, filtered)


def whole_buffers(
    shape: Sequence[int], spacing: Sequence[float], config: ModelConfig, heads: int, exact: bool
) -> WholeBuffers:
    """The same for a scan that cannot go through as a stream."""
    grid = tuple(max(n, 1) for n in resampled_shape(shape, spacing, config.spacing))
    counts = len(config.channels), heads, len(config.members)
    resampling = config.resample_data
    axis = separated_axis(spacing, config.spacing, resampling.force_separate_z) or 0
    like_torch = resampling.function == "torch"
    return WholeBuffers(*counts, config.patch_size, grid, tuple(shape), axis, like_torch, exact)


def _interpolating(heads: int, plane: Sequence[int], scan_plane: Sequence[int]) -> int:
    """Bytes while some planes of logits are brought to the scan's grid, one axis after another."""
    (y, x), (rows, columns) = plane, scan_plane
    planes, fine = max(SLAB_VOXELS / (heads * rows * columns), 1), rows * columns
    mixed = _FLOAT * heads * max(3 * y * x, y * x + 3 * rows * x, rows * x + 3 * fine)
    return math.ceil(planes * max(mixed, (_FLOAT * heads + _DECIDED) * fine))
