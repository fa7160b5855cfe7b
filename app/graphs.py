"""One window's kernels, captured once as a CUDA graph and replayed for every other window.

A deep network asks for more kernels than a processor can launch while a GPU computes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Run = Callable[[Tensor], Tensor]


class Graph(Protocol):
    """Something that was captured: ``replay`` turns what is in ``given`` into ``made``."""

    @property
    def given(self) -> Tensor: ...  # noqa: D102
    @property
    def made(self) -> Tensor: ...  # noqa: D102
    def replay(self) -> None: ...  # noqa: D102


Capture = Callable[[Run, Tensor], Graph]


class Replayed:
    """``run`` for windows (n, channels, z, y, x), replayed where they have a shape seen before.

    The first windows of a shape go through ``run`` itself, for which libraries choose and load
    their kernels; the second ones are captured by ``capture``. What it returns is overwritten by
    the next call. If a capture fails, ``warn`` gets a line and every call is one of ``run``.
    """

    def __init__(self, run: Run, capture: Capture, warn: Callable[[str], None]) -> None:
        self._run, self._capture, self._warn = run, capture, warn
        self._graphs: dict[torch.Size, Graph | None] = {}
        self._gave_up = False

    def __call__(self, windows: Tensor) -> Tensor:
        """What ``run`` makes of the windows."""
        if self._gave_up or windows.shape not in self._graphs:
            self._graphs.setdefault(windows.shape, None)
            return self._run(windows)
        graph = self._graphs[windows.shape] or self._captured(windows)
        if graph is None:
            return self._run(windows)
        graph.given.copy_(windows)
        graph.replay()
        return graph.made

    def _captured(self, windows: Tensor) -> Graph | None:
        try:
            graph = self._graphs[windows.shape] = self._capture(self._run, windows)
        except RuntimeError as error:  # torch.OutOfMemoryError among them
            self._gave_up = True
            self._graphs.clear()
            reason = ". ".join(" ".join(str(error).split()).split(". ")[:2])
            self._warn(f"kernels are launched one by one, as no CUDA graph was made ({reason})")
            return None
        return graph


@dataclass(frozen=True)
class CudaGraph:
    """A CUDA graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    given: Tensor
    made: Tensor

    def replay(self) -> None:
        """Launch all of it on the current stream."""
        self.graph.replay()


class CudaCapture:
    """Captures graphs that share one pool of memory: they run one after the other.

    What one of them has made is not overwritten by another; only what it needs meanwhile is.
    """

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, run: Run, windows: Tensor) -> CudaGraph:
        """Capture what ``run`` does with windows of this shape; raises RuntimeError."""
        # What calls before have left in torch's allocator is of no use to the graph's own pool.
        torch.cuda.empty_cache()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        given, graph = windows.clone(), torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # Threads that read scans and write masks are no part of it.
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                made = run(given)
            except BaseException:
                _abandon(graph)
                raise
            graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        return CudaGraph(graph, given, made)


def _abandon(graph: torch.cuda.CUDAGraph) -> None:
    """End a capture that failed; that this may fail as well is of no interest."""
    with contextlib.suppress(RuntimeError):
        graph.capture_end()
