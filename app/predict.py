"""One scan from voxels to labels: `Predictor.segment`.

As a stream (app.stream), or at once where ``exact`` asks for nnU-Net's own arithmetic (app.exact);
again with less memory or larger steps where an attempt fails for want of memory or time.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from app import exact, stream
from app.attempt import Attempt, Means
from app.cascade import one_hot
from app.clock import StageClock
from app.configuration import Configuration
from app.deadline import Deadline, TooSlow, Work
from app.dicom.segmentation import write_segmentation
from app.image import (
    DICOM_SUFFIX,
    Image,
    ImageError,
    read_channels,
    suffix_of,
    write_planes,
    writing_probabilities,
)
from app.labels import Probabilities, label_dtype, label_rule, numpy_dtype
from app.listener import SILENT, Listener, Tally
from app.loading import compute_dtype
from app.memory.budget import MIB, Plan, make_plan, of_all
from app.memory.buffers import InTurn, Together
from app.model import Model, ModelError
from app.on_device import OnDevice
from app.preprocess import Prepared, prepare
from app.probabilities import Part, decided, mean
from app.restore import Labels
from app.write_behind import write_behind
from volumes.formats import Volume

# Does something with the parts of a scan, along its first axis, as they are made.
Sink = Callable[[Iterator[Part]], None]
# Takes the probabilities of a part.
Keep = Callable[[Probabilities], None]


@dataclass(frozen=True)
class Options:
    """How to predict, besides the model.

    ``exact`` follows nnU-Net's arithmetic step by step; ``step_size`` is the largest step between
    windows, in patch sizes; ``tta`` mirrors along the axes that training allowed;
    ``vram_budget_mib``: memory is planned for that much, context included; None: it is not;
    ``body``: a CT's air around the body is not looked at and gets no label; ``probabilities``:
    they are written, too, and the labels are taken from them, as nnU-Net does it then.
    """

    device: torch.device
    exact: bool = False
    step_size: float = 0.5
    tta: bool = False
    vram_budget_mib: int | None = None
    body: bool = False
    probabilities: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.step_size <= 1:
            raise ValueError(f"step_size {self.step_size} should be more than 0 and at most 1")
        if self.exact and self.body:
            raise ValueError("without the air the windows lie elsewhere, and exact masks differ")


class Predictor:
    """A loaded model, ready for any number of scans.

    The device is not touched before the first scan is ready for it. Raises BudgetError if not even
    one window fits into the budget beside the least context there is (`segment` does so beside the
    one there is); ModelError if weights do not fit the network, or the options not the model.
    """

    def __init__(self, model: Model, options: Options) -> None:
        self.config, self.options = model.config, options
        self.configurations = [
            Configuration(one, options.device, options.exact, options.tta)
            for one in (model, *model.others)
        ]
        self.stages = [stage for one in self.configurations for stage in one.stages()]
        if options.body and any(not stage.for_ct for stage in self.stages):
            raise ModelError(
                f"model {model.config.name}: its first channel is not normalised as CT, so a body "
                "cannot be told from air; leave out --crop-to-body"
            )
        self.compute_dtype = compute_dtype(options.device, options.exact)
        self.needs = None
        if options.vram_budget_mib is not None:
            self.needs = of_all([stage.needs() for stage in self.stages])
            self.needs.check(options.vram_budget_mib)
        self._owners = {network: stage for stage in self.stages for network in stage.networks()}
        self.on_device = OnDevice(
            list(self._owners),
            lambda network: self._owners[network].one_pass(network),
            options.device,
            options.vram_budget_mib,
        )

    def predict(
        self,
        scan: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        listener: Listener = SILENT,
        series: str | None = None,
    ) -> Volume:
        """The mask of a scan: its file, or a sequence of files, one for each channel, in order.

        Also a folder with a CT series in DICOM; ``series`` is its UID, where there are several.

        The labels (z, y, x), uint8 or uint16, on the grid of the scan, or of its first channel;
        `Volume.write` writes the file that the command line writes. ``listener.warn`` is told what
        is unusual about a file. Raises ImageError for files that cannot be segmented, and what
        `segment` raises.
        """
        files = [Path(scan)] if isinstance(scan, (str, os.PathLike)) else [Path(f) for f in scan]
        channels = self.config.channels
        if len(files) != len(channels):
            given = ", ".join(map(str, files)) or "no file"
            raise ImageError(
                f"{given}: the model takes one file for each channel ({', '.join(channels)})"
            )
        images = read_channels(files, self.config.reader, series)
        for file, image in zip(files, images, strict=True):
            for note in image.notes:
                listener.warn(f"{file}: {note}")
        labels, first = self.segment(images, listener), images[0]
        stored = first.orientation.stored(iter([labels]), first.header.shape_zyx, labels.dtype)
        return Volume(next(stored), first.header)

    @torch.inference_mode()
    def segment(
        self,
        channels: Sequence[Image],
        listener: Listener = SILENT,
        deadline: float | None = None,
    ) -> Labels:
        """The labels (z, y, x) of one scan, uint8 or uint16, on its grid.

        ``channels`` share one grid. After a failed allocation, or where ``deadline`` (on
        time.perf_counter's clock) would be missed, a line goes to ``listener.warn`` and the scan
        starts again. Raises ValueError with one line for the user, BudgetError if the GPU has no
        room for one window, torch.OutOfMemoryError if the smallest plan fails.
        """
        made: list[Labels] = []

        def collect(parts: Iterator[Part]) -> None:
            made.append(self._whole(_labels(parts, None), channels[0].voxels.shape))

        self._attempts(channels, collect, listener, deadline, StageClock())
        return made[0]

    @torch.inference_mode()
    def write(
        self, channels: Sequence[Image], output: Path, listener: Listener, deadline: float | None
    ) -> dict[str, float]:
        """`segment`, written as a mask while it is made; returns the seconds spent in each stage.

        With ``probabilities`` these are written beside it. Raises what `segment` raises, and
        ImageError; no partial file is left.
        """
        dtype, clock = numpy_dtype(label_dtype(self.config)), StageClock()
        scan = channels[0]

        def mask(labels: Iterator[Labels]) -> None:
            if self.config.postprocessing is not None:
                labels = iter([self._whole(labels, scan.voxels.shape)])
            if suffix_of(output) == DICOM_SUFFIX:
                write_segmentation(output, labels, scan, self.config)
            else:
                write_planes(output, labels, dtype, scan)

        def write(parts: Iterator[Part]) -> None:
            # What is left of writing: the stages before it do most of the waiting.
            with clock.stage("write"), ExitStack() as files:
                kept = None
                if self.options.probabilities:
                    classes = len(self.config.labels)
                    beside = writing_probabilities(output, classes, scan)
                    kept = files.enter_context(beside)
                write_behind(parts, lambda made: mask(_labels(made, kept)))

        self._attempts(channels, write, listener, deadline, clock)
        return clock.laps

    @torch.inference_mode()
    def logits_on_grid(self, channels: Sequence[Image]) -> tuple[Tensor, Prepared]:
        """What `segment` makes labels of unless ``exact``, on the host, before a lesion filter.

        For a model of one stage. Logits (head, z, y, x) on the network's grid, and the scan that
        `labels` puts them on.
        """
        (of,), scans = self.stages, self._prepared(channels)
        attempt = self._first(channels, None, SILENT)
        means = self._means(scans, attempt, StageClock(), SILENT)[of]
        slabs = stream.logit_slabs(scans[of], of.config, of.heads, means)
        return torch.cat([slab.to("cpu", copy=True) for slab in slabs], 1), scans[of]

    def labels(self, logits: Tensor, scan: Prepared) -> Labels:
        """The labels (z, y, x) of the scan that logits (head, z, y, x) from its grid come to."""
        (of,), slabs = self.stages, iter([logits.to(self.options.device)])
        parts = stream.label_slabs(slabs, scan, of.config, of.rule)
        return self._whole(parts, [scan.grid.shape[i] for i in np.argsort(of.config.transpose)])

    def plan(self, channels: Sequence[Image]) -> Plan:
        """How much of this scan's way will be on the device at a time; makes the GPU's context.

        Raises BudgetError.
        """
        budget_mib, needs, whole = self.options.vram_budget_mib, self.needs, self.options.exact
        if needs is None or budget_mib is None:
            return Plan()
        room = self.on_device.room
        if room is not None:
            budget_mib, needs = room.budget_mib, replace(needs, context=room.context)
        wanted = self._probabilities_are_made
        held = [stage.buffers(channels[0], wanted) for stage in self.stages]
        if not whole and len(self.configurations) > 1:
            held.append(
                Together(tuple(c.buffers(channels[0], wanted) for c in self.configurations))
            )
        return make_plan(budget_mib, needs, InTurn(tuple(held)), batches=not whole)

    @property
    def _probabilities_are_made(self) -> bool:
        return self.options.probabilities or len(self.configurations) > 1

    def _attempts(
        self,
        channels: Sequence[Image],
        sink: Sink,
        listener: Listener,
        deadline: float | None,
        clock: StageClock,
    ) -> None:
        """Hand the labels to ``sink``, each time from the first on, until it has all of them."""
        with clock.stage("preprocess"):
            scans = self._prepared(channels)
        with clock.stage("device"):
            attempt = self._first(channels, deadline, listener)
        while True:
            try:
                sink(self._parts(scans, attempt, clock, listener))
                return
            except (torch.OutOfMemoryError, TooSlow) as reason:
                attempt = attempt.after(reason, listener.warn)
            self.on_device.forget()
            gc.collect()  # only now nothing refers to the tensors of the attempt that failed
            if self.options.device.type == "cuda":
                torch.cuda.empty_cache()

    def _prepared(self, channels: Sequence[Image]) -> dict[Configuration, Prepared]:
        """What must be known of a scan, found on the host before a GPU is touched."""
        voxels, options = [c.voxels for c in channels], self.options
        spacing = channels[0].spacing_zyx
        return {
            stage: prepare(voxels, spacing, stage.config, options.exact, options.body)
            for stage in self.stages
        }

    def _first(
        self, channels: Sequence[Image], deadline: float | None, listener: Listener
    ) -> Attempt:
        """The first attempt at a scan; what there is to say of its plan is said."""
        plan = self.plan(channels)
        if plan.peak:
            listener.say(str(plan))
        allowed, room = self.options.vram_budget_mib, self.on_device.room
        if room is not None and allowed is not None and room.budget_mib < allowed:
            listener.warn(
                f"only {room.free // MIB} MiB of the GPU's memory are free: planned for "
                f"{room.budget_mib} MiB, not --vram-budget {allowed}"
            )
        return Attempt(plan, self.options.step_size, deadline)

    def _parts(
        self,
        scans: dict[Configuration, Prepared],
        attempt: Attempt,
        clock: StageClock,
        listener: Listener,
    ) -> Iterator[Part]:
        """The scan in parts along the scan's first axis, each made when it is asked for."""
        means = self._means(scans, attempt, clock, listener)
        ways = [(self._seen(of, scans, means), of, means[of]) for of in self.configurations]
        if not self._probabilities_are_made:
            return map(Part, self._label_parts(*ways[0]))
        if self.options.exact:
            made = exact.probability_parts(ways)
        else:
            made = mean([stream.probability_parts(*way) for way in ways])
        rule, dtype = label_rule(self.config), label_dtype(self.config)
        return decided(made, rule, dtype, keep=self.options.probabilities)

    def _label_parts(self, scan: Prepared, of: Configuration, means: Means) -> Iterator[Labels]:
        way = exact.label_parts if self.options.exact else stream.label_parts
        return way(scan, of, means)

    def _seen(
        self,
        of: Configuration,
        scans: dict[Configuration, Prepared],
        means: dict[Configuration, Means],
    ) -> Prepared:
        """The scan as a configuration sees it: with all labels of the stage before it, if any."""
        scan, before, stage = scans[of], of.previous, of.config.previous_stage
        if before is None or stage is None:
            return scan
        parts = self._label_parts(self._seen(before, scans, means), before, means[before])
        labels = np.concatenate(list(parts)).transpose(of.config.transpose)
        with means[of].clock.stage("preprocess"):
            spacings = scan.grid.spacing, of.config.spacing_on(scan.grid.spacing)
            channels = one_hot(labels, stage, scan.volumes, scan.grid.crop, scan.shape, spacings)
        return replace(scan, more=channels.planes)

    def _whole(self, parts: Iterator[Labels], shape: Sequence[int]) -> Labels:
        """The labels (z, y, x) of all parts, after nnU-Net's postprocessing."""
        labels: Labels = np.empty(shape, numpy_dtype(label_dtype(self.config)))
        done = 0
        for part in parts:
            labels[done : done + len(part)] = part
            done += len(part)
        if self.config.postprocessing is not None:
            # Imported where it is used: it brings a library of its own.
            from app.largest_component import keep_largest

            keep_largest(labels, self.config.postprocessing.keep_largest)
        return labels

    def _means(
        self,
        scans: dict[Configuration, Prepared],
        attempt: Attempt,
        clock: StageClock,
        listener: Listener,
    ) -> dict[Configuration, Means]:
        """What each stage works with; a deadline is kept by models of one stage alone."""
        device, step_size, watch = self.options.device, attempt.step_size, None
        with clock.stage("device"):
            passes = self.on_device.passes(listener.say, listener.warn)
        work = [
            Work(scans[s].shape, s.config.patch_size, step_size, len(s.config.members), s.heads)
            for s in self.stages
        ]
        on_window = listener.on_window
        if attempt.deadline is not None and len(work) == 1:
            before, warn = clock.so_far(), listener.warn
            watch = Deadline(attempt.deadline, work[0], clock, before, device, warn)
            on_window = _both(watch.on_window, on_window)
        tally = Tally([one.windows(step_size) for one in work], on_window)
        return {
            stage: Means(
                passes=[
                    p for p, s in zip(passes, self._owners.values(), strict=True) if s is stage
                ],
                device=device,
                buffers=torch.device("cpu") if attempt.plan.on_host else device,
                plan=attempt.plan,
                step_size=step_size,
                clock=clock,
                on_window=self.on_device.settling(tally.part(number)),
                deadline=watch,
            )
            for number, stage in enumerate(self.stages)
        }


def _labels(parts: Iterator[Part], keep: Keep | None) -> Iterator[Labels]:
    """The labels of the parts, whose probabilities go to ``keep``."""
    for part in parts:
        if keep is not None and part.probabilities is not None:
            keep(part.probabilities)
        yield part.labels


def _both(
    first: Callable[[int, int], None], second: Callable[[int, int], None]
) -> Callable[[int, int], None]:
    def call(done: int, of: int) -> None:
        first(done, of)
        second(done, of)

    return call
