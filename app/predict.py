"""One scan from voxels to mask: preprocess, sliding window, restore, write.

By default as a stream (app.stream); at once where ``exact`` asks for nnU-Net's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from app.image import Image, write_mask, write_planes
from app.labels import DIFFERENCE_RULE, label_dtype, label_rule
from app.model import Member, Model, ModelError
from app.networks import UNet, build_network, fold_two_class_head
from app.preprocess import prepare, preprocess, preprocess_slabs
from app.restore import Labels, restore, restore_slabs
from app.sliding_window import mirrored, predict_logits, predict_slabs
from app.stream import StageClock, can_stream, finite, in_scan_order, write_behind

STAGES = ("preprocess", "network", "restore", "write")


@dataclass(frozen=True)
class Options:
    """How to predict, besides the model.

    ``exact`` follows nnU-Net's arithmetic step by step; ``step_size`` is the largest step between
    windows, in patch sizes; ``tta`` mirrors along the axes that training allowed.
    """

    device: torch.device
    exact: bool = False
    step_size: float = 0.5
    tta: bool = False


class Predictor:
    """A loaded model, ready for any number of scans. Raises ModelError if weights do not fit."""

    def __init__(self, model: Model, options: Options) -> None:
        self.config, self.options = model.config, options
        self.compute_dtype = _compute_dtype(options)
        self.rule, self.heads = label_rule(model.config), model.config.network.heads
        one_channel = not options.exact and self.rule.regions is None and self.heads == 2
        if one_channel:
            self.rule, self.heads = DIFFERENCE_RULE, 1
        self.networks = [
            _load_network(model, member, one_channel, self.compute_dtype, options.device)
            for member in model.config.members
        ]

    @torch.inference_mode()
    def predict(
        self, channels: Sequence[Image], output: Path, on_window: Callable[[int, int], None]
    ) -> dict[str, float]:
        """Segment one scan and write its mask; returns the seconds spent in each stage.

        ``channels`` share one grid; ``on_window(done, of)`` is told of progress. Raises ImageError
        or ValueError with one line for the user; no partial file is left.
        """
        clock = StageClock(STAGES)
        if self.options.exact or not can_stream(self.config, channels[0].spacing_zyx):
            mask = self._at_once(channels, on_window, clock)
            with clock.stage("write"):
                write_mask(output, mask, channels[0])
            return clock.laps
        parts = self._slab_by_slab(channels, on_window, clock)
        dtype = _numpy(label_dtype(self.config))
        with clock.stage(
            "write"
        ):  # what is left of it: the stages before it do most of the waiting
            write_behind(parts, lambda arriving: write_planes(output, arriving, dtype, channels[0]))
        return clock.laps

    def _slab_by_slab(
        self, channels: Sequence[Image], on_window: Callable[[int, int], None], clock: StageClock
    ) -> Iterator[Labels]:
        """The mask in parts along the scan's first axis, each made when it is asked for."""
        config, voxels = self.config, [c.voxels for c in channels]
        with clock.stage("preprocess"):
            scan = prepare(voxels, channels[0].spacing_zyx, config, exact=False)
        slabs = clock.timed("preprocess", preprocess_slabs(scan, config, self.options.device))
        logits = predict_slabs(
            slabs,
            scan.shape,
            [self._one_pass(n) for n in self.networks],
            config.patch_size,
            self.options.step_size,
            self.heads,
            on_window,
        )
        logits = clock.timed("network", map(finite, logits))
        dtype = label_dtype(config)
        labels = restore_slabs(logits, scan.shape, self.rule, config, scan.grid, dtype)
        parts = in_scan_order(labels, voxels[0].shape, _numpy(dtype), config.transpose)
        return clock.timed("restore", parts)

    def _at_once(
        self, channels: Sequence[Image], on_window: Callable[[int, int], None], clock: StageClock
    ) -> Labels:
        """The whole mask, with the logits of the whole scan in memory."""
        config, exact, device = self.config, self.options.exact, self.options.device
        with clock.stage("preprocess"):
            voxels = [c.voxels for c in channels]
            volume, grid = preprocess(voxels, channels[0].spacing_zyx, config, exact, device)
        with clock.stage("network"):
            logits = self._logits(volume, on_window)
            del volume
        with clock.stage("restore"):
            if exact:
                logits = logits.cpu()
            return restore(logits, self.rule, config, grid, label_dtype(config), exact)

    def _logits(self, volume: Tensor, on_window: Callable[[int, int], None]) -> Tensor:
        """Mean logits of the ensemble, float16 when exact, else float32."""
        total: Tensor | None = None
        members = len(self.networks)
        for number, network in enumerate(self.networks):

            def progress(done: int, of: int, before: int = number) -> None:
                on_window(before * of + done, members * of)

            logits = predict_logits(
                volume,
                self._one_pass(network),
                self.config.patch_size,
                self.options.step_size,
                self.heads,
                torch.float16 if self.options.exact else torch.float32,
                progress,
            )
            total = logits if total is None else total.add_(logits)
        assert total is not None
        if members > 1:
            total /= members
        return finite(total)

    def _one_pass(self, network: UNet) -> Callable[[Tensor], Tensor]:
        """The network as the sliding window calls it: precision and augmentation decided."""

        def run(x: Tensor) -> Tensor:
            logits: Tensor = network(x)
            return logits if self.options.exact else logits.float()

        return mirrored(run, self.config.mirror_axes) if self.options.tta else run


def _compute_dtype(options: Options) -> torch.dtype:
    """What convolutions compute in: nnU-Net's autocast on CUDA, float32 on a CPU when exact."""
    if options.device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if not options.exact and _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively; emulated, it is slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _load_network(
    model: Model, member: Member, one_channel: bool, dtype: torch.dtype, device: torch.device
) -> UNet:
    """One member on ``device``: convolutions in ``dtype``, instance norms in float32 (autocast).

    With bfloat16 the first convolution stays in float32: eight bits would round a scan to some
    4 HU, which instance norm amplifies where a patch is nearly constant, in air for example.
    """
    file = model.weights_file(member)
    network = build_network(model.config.network)
    try:
        weights = {name: tensor.float() for name, tensor in load_file(file).items()}
        network.load_state_dict(weights, assign=True)
    except (SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{file}: does not fit the network in model.json ({reason}); export it again"
        ) from None
    network.requires_grad_(False)
    if one_channel:
        fold_two_class_head(network)
    for module in network.modules():
        keep = module is network.first and dtype is torch.bfloat16
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)) and not keep:
            module.to(dtype)
    return network.to(device)


def _numpy(dtype: torch.dtype) -> np.dtype[Any]:
    return torch.empty(0, dtype=dtype).numpy().dtype
