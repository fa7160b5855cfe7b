"""One scan from voxels to mask: preprocess, sliding window, restore, write.

By default as a stream (app.stream); at once where ``exact`` asks for nnU-Net's own arithmetic.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.attempt import Attempt, unheard
from app.deadline import Deadline, TooSlow, Work
from app.host_windows import Uploaded
from app.image import Image, write_mask, write_planes
from app.labels import DIFFERENCE_RULE, is_two_class, label_dtype, label_rule
from app.loading import arrange, compute_dtype, load_network
from app.memory.budget import MIB, Needs, Plan, make_plan
from app.memory.buffers import stream_buffers, whole_buffers
from app.memory.live_bytes import LiveBytes, peak_of
from app.model import Model, ModelError
from app.networks import UNet, build_network
from app.on_device import OnDevice
from app.preprocess import Grid, Prepared, prepare, preprocess, preprocess_slabs
from app.restore import Labels, restore, restore_slabs
from app.sliding_window import Network, mirrored, predict_logits, predict_slabs
from app.stream import StageClock, can_stream, finite, in_scan_order, write_behind

STAGES = ("preprocess", "device", "network", "restore", "write")


@dataclass(frozen=True)
class Options:
    """How to predict, besides the model.

    ``exact`` follows nnU-Net's arithmetic step by step; ``step_size`` is the largest step between
    windows, in patch sizes; ``tta`` mirrors along the axes that training allowed;
    ``vram_budget_mib``: memory is planned for that much, context included; None: it is not;
    ``body``: a CT's air around the body is not looked at and gets no label.
    """

    device: torch.device
    exact: bool = False
    step_size: float = 0.5
    tta: bool = False
    vram_budget_mib: int | None = None
    body: bool = False


class Predictor:
    """A loaded model, ready for any number of scans.

    The device is not touched before the first scan is ready for it. Raises BudgetError if not even
    one window fits into the budget beside the least context there is (`predict` does so beside the
    one there is); ModelError if weights do not fit the network, or the options not the model.
    """

    def __init__(self, model: Model, options: Options) -> None:
        self.config, self.options = model.config, options
        if options.body and model.config.normalization[0].scheme != "CTNormalization":
            raise ModelError(
                f"model {model.config.name}: its first channel is not normalised as CT, so a body "
                "cannot be told from air; leave out --crop-to-body"
            )
        self.compute_dtype = compute_dtype(options.device, options.exact)
        self.rule, self.heads = label_rule(model.config), model.config.network.heads
        one_channel = not options.exact and is_two_class(self.rule, self.heads)
        if one_channel:
            self.rule, self.heads = DIFFERENCE_RULE, 1
        self.lesion_filter = model.config.lesion_filter if one_channel else None
        self.needs = None
        if options.vram_budget_mib is not None:
            self.needs = self._measured_needs()
            self.needs.check(options.vram_budget_mib)
        networks = [
            load_network(model, member, options.device, options.exact, one_channel)
            for member in model.config.members
        ]
        budget_mib = options.vram_budget_mib
        self.on_device = OnDevice(networks, self._one_pass, options.device, budget_mib)

    def plan(self, channels: Sequence[Image]) -> Plan:
        """How much of this scan's way will be on the device at a time; makes the GPU's context.

        Raises BudgetError.
        """
        config, budget_mib, needs = self.config, self.options.vram_budget_mib, self.needs
        if needs is None or budget_mib is None:
            return Plan()
        room = self.on_device.room
        if room is not None:
            budget_mib, needs = room.budget_mib, replace(needs, context=room.context)
        shape = tuple(channels[0].voxels.shape[i] for i in config.transpose)
        spacing = tuple(channels[0].spacing_zyx[i] for i in config.transpose)
        if self._streams(channels):
            buffers = stream_buffers(shape, spacing, config, self.heads)
            return make_plan(budget_mib, needs, buffers)
        whole = whole_buffers(shape, spacing, config, self.heads, self.options.exact)
        return make_plan(budget_mib, needs, whole, batches=False)

    @torch.inference_mode()
    def predict(
        self,
        channels: Sequence[Image],
        output: Path,
        on_window: Callable[[int, int], None],
        warn: Callable[[str], None] = unheard,
        deadline: float | None = None,
        say: Callable[[str], None] = unheard,
    ) -> dict[str, float]:
        """Segment one scan and write its mask; returns the seconds spent in each stage.

        ``channels`` share one grid; ``on_window(done, of)`` is told of progress, ``say`` of the
        plan. After a failed allocation, or where ``deadline`` (on time.perf_counter's clock) would
        be missed, ``warn`` gets a line and the scan starts again. Raises ImageError or ValueError
        with one line for the user, BudgetError if the GPU has no room for one window,
        torch.OutOfMemoryError if the smallest plan fails; no partial file is left.
        """
        clock = StageClock(STAGES)
        scan = self._prepared(channels, clock)
        with clock.stage("device"):
            plan = self.plan(channels)
        self._say(plan, say, warn)
        attempt = Attempt(plan, self.options.step_size, deadline, warn, say)
        while True:
            try:
                self._segment(channels, scan, output, on_window, clock, attempt)
                return clock.laps
            except (torch.OutOfMemoryError, TooSlow) as reason:
                attempt = attempt.after(reason)
            self.on_device.forget()
            gc.collect()  # only now nothing refers to the tensors of the attempt that failed
            if self.options.device.type == "cuda":
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def logits_on_grid(self, channels: Sequence[Image]) -> tuple[Tensor, Grid]:
        """What `predict` makes a mask of, on the host, before a lesion filter sees it.

        Logits (head, z, y, x) on the network's grid, and what it takes to put labels on the scan.
        """
        clock = StageClock(STAGES)
        scan = self._prepared(channels, clock)
        attempt = Attempt(self.plan(channels), self.options.step_size)
        if scan is not None:
            slabs = self._logit_slabs(scan, _nobody, clock, attempt)
            return torch.cat([slab.to("cpu", copy=True) for slab in slabs], 1), scan.grid
        logits, grid = self._logits_at_once(channels, _nobody, clock, attempt)
        return logits.cpu(), grid

    def _streams(self, channels: Sequence[Image]) -> bool:
        return not self.options.exact and can_stream(self.config, channels[0].spacing_zyx)

    def _prepared(self, channels: Sequence[Image], clock: StageClock) -> Prepared | None:
        """What a stream must know of a scan, found on the host; None if it is no stream."""
        if not self._streams(channels):
            return None
        voxels = [c.voxels for c in channels]
        with clock.stage("preprocess"):
            return prepare(voxels, channels[0].spacing_zyx, self.config, False, self.options.body)

    def _say(self, plan: Plan, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        if plan.peak:
            say(str(plan))
        allowed, room = self.options.vram_budget_mib, self.on_device.room
        if room is not None and allowed is not None and room.budget_mib < allowed:
            warn(
                f"only {room.free // MIB} MiB of the GPU's memory are free: planned for "
                f"{room.budget_mib} MiB, not --vram-budget {allowed}"
            )

    def _segment(
        self,
        channels: Sequence[Image],
        scan: Prepared | None,
        output: Path,
        on_window: Callable[[int, int], None],
        clock: StageClock,
        attempt: Attempt,
    ) -> None:
        if scan is None:
            mask = self._at_once(channels, on_window, clock, attempt)
            with clock.stage("write"):
                write_mask(output, mask, channels[0])
            return
        parts = self._slab_by_slab(channels, scan, on_window, clock, attempt)
        dtype = _numpy(label_dtype(self.config))
        # What is left of writing: the stages before it do most of the waiting.
        with clock.stage("write"):
            write_behind(parts, lambda arriving: write_planes(output, arriving, dtype, channels[0]))

    def _slab_by_slab(
        self,
        channels: Sequence[Image],
        scan: Prepared,
        on_window: Callable[[int, int], None],
        clock: StageClock,
        attempt: Attempt,
    ) -> Iterator[Labels]:
        """The mask in parts along the scan's first axis, each made when it is asked for."""
        config = self.config
        logits = self._logit_slabs(scan, on_window, clock, attempt)
        if self.lesion_filter is not None:
            # Imported where it is used: it brings a library of its own.
            from app.lesion_filter import remove_slabs, voxel_ml

            volume_ml = voxel_ml(scan.grid, scan.shape)
            device = self._buffers(attempt.plan)
            logits = remove_slabs(logits, self.lesion_filter, volume_ml, device)
        dtype = label_dtype(config)
        labels = restore_slabs(logits, scan.shape, self.rule, config, scan.grid, dtype)
        shape = channels[0].voxels.shape
        parts = in_scan_order(labels, shape, _numpy(dtype), config.transpose)
        return clock.timed("restore", parts)

    def _logit_slabs(
        self,
        scan: Prepared,
        on_window: Callable[[int, int], None],
        clock: StageClock,
        attempt: Attempt,
    ) -> Iterator[Tensor]:
        """Logits (head, planes, y, x) in slabs, each made when it is asked for."""
        config, plan = self.config, attempt.plan
        with clock.stage("device"):
            on_device = self.on_device.passes(attempt.say, attempt.warn)
        passes: list[Network] = [*on_device]
        if plan.on_host and self.options.device.type == "cuda":
            passes = [Uploaded(one_pass, self.options.device) for one_pass in on_device]
        slabs = preprocess_slabs(scan, config, self._buffers(plan), plan.sections)
        slabs = clock.timed("preprocess", slabs)
        watch = self._deadline(attempt, scan.shape, clock, clock.so_far())
        if watch is not None:
            slabs, on_window = watch.feeding(slabs), _both(watch.on_window, on_window)
        logits = predict_slabs(
            slabs,
            scan.shape,
            passes,
            config.patch_size,
            attempt.step_size,
            self.heads,
            self.on_device.settling(on_window),
            plan.windows,
        )
        return clock.timed("network", map(finite, logits))

    def _at_once(
        self,
        channels: Sequence[Image],
        on_window: Callable[[int, int], None],
        clock: StageClock,
        attempt: Attempt | None = None,
    ) -> Labels:
        """The whole mask, with the logits of the whole scan in memory."""
        config, exact = self.config, self.options.exact
        attempt = attempt or Attempt(self.plan(channels), self.options.step_size)
        logits, grid = self._logits_at_once(channels, on_window, clock, attempt)
        with clock.stage("restore"):
            if exact:
                logits = logits.cpu()
            elif self.lesion_filter is not None:
                from app.lesion_filter import remove, voxel_ml

                on_host = logits.cpu()
                volume_ml = voxel_ml(grid, on_host.shape[1:])
                remove(on_host[0].numpy(), self.lesion_filter, volume_ml)
                logits.copy_(on_host)
            return restore(logits, self.rule, config, grid, label_dtype(config), exact)

    def _logits_at_once(
        self,
        channels: Sequence[Image],
        on_window: Callable[[int, int], None],
        clock: StageClock,
        attempt: Attempt,
    ) -> tuple[Tensor, Grid]:
        """Logits (head, z, y, x) of the whole scan."""
        before = clock.so_far()
        with clock.stage("device"):
            self.on_device.passes(attempt.say, attempt.warn)
        with clock.stage("preprocess"):
            voxels, spacing_zyx = [c.voxels for c in channels], channels[0].spacing_zyx
            device = self._buffers(attempt.plan)
            volume, grid = preprocess(
                voxels, spacing_zyx, self.config, self.options.exact, device, self.options.body
            )
        watch = self._deadline(attempt, volume.shape[1:], clock, before)
        if watch is not None:
            on_window = _both(watch.on_window, on_window)
        with clock.stage("network"):
            return self._logits(volume, on_window, attempt), grid

    def _logits(
        self,
        volume: Tensor,
        on_window: Callable[[int, int], None],
        attempt: Attempt | None = None,
    ) -> Tensor:
        """Mean logits of the ensemble, float16 when exact, else float32."""
        total: Tensor | None = None
        attempt = attempt or Attempt(Plan(), self.options.step_size)
        on_window = self.on_device.settling(on_window)
        passes = self.on_device.passes(attempt.say, attempt.warn)
        device = self.options.device
        for number, one_pass in enumerate(passes):

            def progress(done: int, of: int, before: int = number) -> None:
                on_window(before * of + done, len(passes) * of)

            def from_there(x: Tensor, run: Callable[[Tensor], Tensor] = one_pass) -> Tensor:
                return run(x.to(device)).to(x.device)

            logits = predict_logits(
                volume,
                from_there,
                self.config.patch_size,
                attempt.step_size,
                self.heads,
                torch.float16 if self.options.exact else torch.float32,
                progress,
            )
            total = logits if total is None else total.add_(logits)
        assert total is not None
        if len(passes) > 1:
            total /= len(passes)
        return finite(total)

    def _one_pass(self, network: UNet) -> Callable[[Tensor], Tensor]:
        """The network as the sliding window calls it: precision and augmentation decided."""

        def run(x: Tensor) -> Tensor:
            logits: Tensor = network(x)
            return logits if self.options.exact else logits.float()

        return mirrored(run, self.config.mirror_axes) if self.options.tta else run

    def _buffers(self, plan: Plan) -> torch.device:
        """Where all but the network is."""
        return torch.device("cpu") if plan.on_host else self.options.device

    def _deadline(
        self, attempt: Attempt, shape: Sequence[int], clock: StageClock, before: dict[str, float]
    ) -> Deadline | None:
        if attempt.deadline is None:
            return None
        passes = len(self.config.members)
        work = Work(tuple(shape), self.config.patch_size, attempt.step_size, passes, self.heads)
        finish = torch.cuda.synchronize if self.options.device.type == "cuda" else _nothing
        return Deadline(attempt.deadline, work, clock, before, finish, attempt.warn)

    def _measured_needs(self) -> Needs:
        """What the network needs, found on the meta device."""
        config = self.config
        network = build_network(replace(config.network, heads=self.heads))
        with LiveBytes():  # weights are computed with, too: as cheaply as the network's tensors
            arrange(network, self.options.device, self.compute_dtype, self.options.exact)
        weights = sum(p.nbytes for p in network.parameters()) * len(config.members)
        shape = (1, len(config.channels), *config.patch_size)
        _, window = peak_of(self._one_pass(network), shape)
        return Needs(weights, len(config.members), window, config.patch_size)


def _both(
    first: Callable[[int, int], None], second: Callable[[int, int], None]
) -> Callable[[int, int], None]:
    def call(done: int, of: int) -> None:
        first(done, of)
        second(done, of)

    return call


def _nobody(done: int, of: int) -> None:
    """Nobody is told of progress."""


def _nothing() -> None:
    """A CPU has done what it was asked to."""


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.empty(0, dtype=dtype).numpy().dtype
