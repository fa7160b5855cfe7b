"""An ensemble's networks on the device that they run on, and what a GPU has room for.

The device is first touched when `room` or `passes` is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from app.channels_last import fuse_norms
from app.graphs import CudaCapture, Replayed
from app.kernels.load import load_norm_kernel
from app.kernels.norm import NormKernel
from app.listener import Tell
from app.memory.budget import Room
from app.networks import UNet

Pass = Callable[[Tensor], Tensor]


class OnDevice:
    """``networks``, each called through ``make_pass``, on ``device`` within ``budget_mib``."""

    def __init__(
        self,
        networks: Sequence[UNet],
        make_pass: Callable[[UNet], Pass],
        device: torch.device,
        budget_mib: int | None,
    ) -> None:
        self._networks, self._make_pass = networks, make_pass
        self._device, self._budget_mib = device, budget_mib
        self._passes: list[Pass] | None = None
        self._warn: Tell

    @cached_property
    def room(self) -> Room | None:
        """What a GPU has room for; None on a CPU, or where memory is not planned."""
        if self._device.type != "cuda" or self._budget_mib is None:
            return None
        return Room(self._budget_mib, self._device)

    def passes(self, say: Tell, warn: Tell) -> list[Pass]:
        """Each network as the sliding window calls it; on a GPU fused and replayed.

        ``say`` is told which kernel is used when they are made, ``warn`` whatever goes wrong from
        now on. What a pass returns may be overwritten by its next call.
        """
        self._warn = warn
        if self._passes is None:
            self._passes = [self._make_pass(n.to(self._device)) for n in self._networks]
            if self._device.type == "cuda":
                self._passes = self._quicker(self._passes, say)
        return self._passes

    def forget(self) -> None:
        """Let go of captured graphs and their memory, after an allocation that failed."""
        self._passes = None

    def settling(self, on_window: Callable[[int, int], None]) -> Callable[[int, int], None]:
        """The same, where the GPU's memory is looked at again after the first windows."""
        room = self.room

        def call(done: int, of: int) -> None:
            nonlocal room
            if room is not None:
                room.settle()
                room = None
            on_window(done, of)

        return call

    def _quicker(self, passes: Sequence[Pass], say: Tell) -> list[Pass]:
        kernel, phrase = self._kernel
        say(phrase)
        for network in self._networks:
            fuse_norms(network, kernel)
        capture = CudaCapture()
        return [Replayed(run, capture, lambda message: self._warn(message)) for run in passes]

    @cached_property
    def _kernel(self) -> tuple[NormKernel | None, str]:
        return load_norm_kernel(self._device)
