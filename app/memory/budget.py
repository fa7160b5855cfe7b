"""The memory plan: what goes onto the GPU, computed when its context has been measured.

    context + libraries + (weights + the larger of two peaks) and a share for gaps

Peaks: the live activations of a batch of windows beside the stream's buffers, and the stages
that work while the network does not. ``--vram-budget`` is a promise: torch's allocator, which also
gives cuDNN and cuBLAS their workspace, may have what the budget leaves beside the context, gaps
included. Where that is too little, an allocation fails, and a smaller plan follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from app.memory.buffers import Buffers
from app.resample import SLAB_SECTIONS
from volumes.errors import UserError

MIB = 2**20
DEFAULT_BUDGET_MIB = 4096
# CUDA's context, which torch's allocator does not see, until there is one to be measured: what a
# refusal counts with before a GPU is touched. 300 to 621 MiB were measured.
CONTEXT = 300 * MIB
# On a GPU that others use, too, what they hold cannot be told from our context: not more is ours.
MOST_CONTEXT = 1024 * MIB
# What cuDNN and cuBLAS take when their first kernels are loaded (30 MiB on an H200, with cuBLAS'
# workspaces bounded as app.__main__ does it), and the segments of small tensors.
LIBRARIES = 64 * MIB
# Blocks that the allocator keeps and that do not fit the next tensor. Its large segments are
# rounded to 2 MiB and a network asks for few different sizes.
_GAPS = 1 / 16
# A batch of windows fills a GPU that one small window does not; from about two million voxels on
# (one window of 96 x 128 x 128 has 1.6) it only costs memory. Computed, not measured on a GPU.
_BATCH_VOXELS = 2**21
_BATCH = 16
_SECTIONS = (SLAB_SECTIONS, SLAB_SECTIONS // 2, SLAB_SECTIONS // 4)


class BudgetError(UserError):
    """One line for the user: what is needed, what is allowed, what to do."""


def budget_on(device: torch.device, mib: int | None) -> int | None:
    """What a plan has to keep to: ``mib``, or the default; None on a CPU, where there is none."""
    return (mib or DEFAULT_BUDGET_MIB) if device.type == "cuda" else None


@dataclass(frozen=True)
class Needs:
    """Bytes of what does not depend on the scan.

    ``weights`` of all ``members``; ``window``: peak of live activations of one window of ``patch``
    voxels, its input, its logits and cuDNN's workspace among them; ``context``: as measured, or
    the least there is.
    """

    weights: int
    members: int
    window: int
    patch: tuple[int, ...]
    context: int = CONTEXT

    def peak(self, windows: int, beside: int = 0, without: int = 0) -> int:
        """Bytes on the GPU with so many windows a batch, context and gaps included."""
        tensors = self.weights + max(beside + windows * self.window, without)
        return self.context + LIBRARIES + tensors + math.ceil(tensors * _GAPS)

    def check(self, budget_mib: int) -> None:
        """Raise BudgetError if not even one window fits when all else is on the host."""
        if self.peak(1) <= budget_mib * MIB:
            return
        patch = " x ".join(str(n) for n in self.patch)
        least = _mib(self.peak(1))
        parts = [_mib(n) for n in (self.context, LIBRARIES, self.weights, self.window)]
        context, libraries, weights, window = parts
        raise BudgetError(
            f"--vram-budget {budget_mib}: one window needs {least} MiB ({context} context, "
            f"{libraries} CUDA libraries, {weights} weights of {self.members} member(s), {window} "
            f"window of {patch}, {least - sum(parts)} gaps) with everything else on the host; "
            f"allow {least} MiB or more, or use --device cpu"
        )


def of_all(needs: Sequence[Needs]) -> Needs:
    """What configurations need together: all their weights, and the largest window."""
    largest = max(needs, key=lambda one: one.window)
    weights, members = sum(one.weights for one in needs), sum(one.members for one in needs)
    return replace(largest, weights=weights, members=members)


@dataclass(frozen=True)
class Plan:
    """How one scan goes through: ``windows`` per batch, ``sections`` preprocessed at a time.

    ``on_host``: the buffers live there, stages other than the network work there, and windows are
    uploaded batch by batch. ``needs`` and ``buffers`` are None where memory is not planned.
    """

    windows: int = 1
    sections: int = SLAB_SECTIONS
    on_host: bool = False
    needs: Needs | None = None
    buffers: Buffers | None = None

    @property
    def peak(self) -> int:
        """Predicted peak on the GPU in bytes; 0 where memory is not planned."""
        if self.needs is None or self.buffers is None:
            return 0
        if self.on_host:
            return self.needs.peak(self.windows)
        beside = self.buffers.beside_network(self.sections)
        return self.needs.peak(self.windows, beside, self.buffers.without_network(self.sections))

    def smaller(self) -> Plan | None:
        """The next plan after an allocation failed; None if there is none."""
        if self.windows > 1:
            return replace(self, windows=self.windows // 2)
        return None if self.on_host else replace(self, on_host=True)

    def __str__(self) -> str:
        windows = f"{self.windows} window{'s' if self.windows > 1 else ''} per batch"
        place = "on the host" if self.on_host else "on the device"
        peak = f", at most {_mib(self.peak)} MiB" if self.peak else ""
        return f"{windows}, slabs of {self.sections} sections, buffers {place}{peak}"


def make_plan(budget_mib: int, needs: Needs, buffers: Buffers, batches: bool = True) -> Plan:
    """The first plan that fits: the most windows, then the thickest slabs, then the host.

    ``batches`` False: one window at a time. Raises BudgetError if none fits.
    """
    most = _most_windows(needs.patch) if batches else 1
    needs.check(budget_mib)
    plans = _candidates(most, Plan(needs=needs, buffers=buffers))
    return next(p for p in plans if p.peak <= budget_mib * MIB)


class Room:
    """What this process may have of a GPU; making it makes the context, and measures that.

    ``context``: its bytes; ``free``: the bytes that were left on the GPU then. torch's allocator is
    held to what ``budget_mib`` leaves beside the context, and to what is free.
    """

    def __init__(self, budget_mib: int, device: torch.device) -> None:
        self._device = device
        self.free, self._total = torch.cuda.mem_get_info(device)
        self.context = min(self._total - self.free, MOST_CONTEXT)
        self.budget_mib = min(budget_mib, (self.context + self.free) // MIB)
        self._limit(LIBRARIES)

    def settle(self) -> None:
        """Hold torch to what is left now that the first window has had its libraries loaded."""
        free, _ = torch.cuda.mem_get_info(self._device)
        allocated = torch.cuda.memory_reserved(self._device.index)
        outside = max(self.free - free - allocated, 0)
        self._limit(outside)
        if self.context + outside + allocated > self.budget_mib * MIB:
            torch.cuda.empty_cache()

    def _limit(self, outside: int) -> None:
        allowed = max(self.budget_mib * MIB - self.context - outside, 0)
        fraction = min(allowed / self._total, 1.0)
        torch.cuda.set_per_process_memory_fraction(fraction, self._device.index)


def _most_windows(patch: Sequence[int]) -> int:
    fit = max(_BATCH_VOXELS // math.prod(patch), 1)
    return min(1 << (fit.bit_length() - 1), _BATCH)


def _candidates(most: int, plan: Plan) -> Iterator[Plan]:
    batches = [most >> n for n in range(most.bit_length())]
    for windows in batches:
        for sections in _SECTIONS:
            yield replace(plan, windows=windows, sections=sections)
    for windows in batches:
        yield replace(plan, windows=windows, on_host=True)


def _mib(size: int) -> int:
    return math.ceil(size / MIB)
