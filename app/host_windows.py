"""A network on a GPU for windows that lie on the host, whose copies run beside it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor


class Uploaded:
    """Starts ``run`` on ``device`` and lets the host go on meanwhile.

    Called with windows (n, channels, z, y, x) on the host; returns a function that waits for their
    logits there, which are overwritten by the call after next. While one batch is computed the
    host cuts the next one, which is uploaded by a stream of its own, and adds up the last one's
    logits. Copies go through pinned memory, as only those do not wait for the host.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._run, self._device = run, device
        self._uploads = torch.cuda.Stream(device)
        self._slots = itertools.cycle((_Pinned(), _Pinned()))

    def __call__(self, windows: Tensor) -> Callable[[], Tensor]:
        """Start; the returned function waits."""
        slot, current = next(self._slots), torch.cuda.current_stream(self._device)
        given = slot.copy("given", windows)
        with torch.cuda.stream(self._uploads):
            uploaded = given.to(self._device, non_blocking=True)
        current.wait_stream(self._uploads)
        uploaded.record_stream(current)
        made = slot.copy("made", self._run(uploaded), non_blocking=True)
        done = torch.cuda.Event()
        done.record(current)

        def wait() -> Tensor:
            done.synchronize()
            return made

        return wait


class _Pinned:
    """Pinned memory that is made once for each shape: to make it takes longer than to fill it."""

    def __init__(self) -> None:
        self._tensors: dict[tuple[str, torch.Size], Tensor] = {}

    def copy(self, name: str, tensor: Tensor, non_blocking: bool = False) -> Tensor:
        key = name, tensor.shape
        if key not in self._tensors:
            self._tensors[key] = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return self._tensors[key].copy_(tensor, non_blocking=non_blocking)
