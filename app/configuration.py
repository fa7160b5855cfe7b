"""One trained configuration of a model as the ways through a scan need it, and its networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from app.image import Image
from app.labels import DIFFERENCE_RULE, is_two_class, label_rule
from app.loading import arrange, compute_dtype, load_network
from app.memory.budget import Needs
from app.memory.buffers import Buffers, stream_buffers, whole_buffers
from app.memory.live_bytes import LiveBytes, peak_of
from app.model import Model
from app.networks import UNet, build_network
from app.sliding_window import mirrored


class Configuration:
    """What a configuration's logits mean, and how its networks run on ``device``.

    ``exact`` and ``tta`` as in `app.predict.Options`. ``rule`` is that of the ``heads`` that its
    networks have here: one, unless ``exact``, where two classes compete.
    """

    def __init__(self, model: Model, device: torch.device, exact: bool, tta: bool) -> None:
        self.model, self.config = model, model.config
        self._device, self._exact, self._tta = device, exact, tta
        self.rule, self.heads = label_rule(self.config), self.config.network.heads
        self._one_channel = not exact and is_two_class(self.rule, self.heads)
        if self._one_channel:
            self.rule, self.heads = DIFFERENCE_RULE, 1
        self.lesion_filter = self.config.lesion_filter if self._one_channel else None
        self.previous: Configuration | None = None
        if model.previous is not None:
            self.previous = Configuration(model.previous, device, exact, tta)

    @property
    def for_ct(self) -> bool:
        """Whether its first channel is normalised as CT."""
        return self.config.normalization[0].scheme == "CTNormalization"

    def stages(self) -> Iterator[Configuration]:
        """The stages of a cascade, in order, and at last the configuration itself."""
        if self.previous is not None:
            yield from self.previous.stages()
        yield self

    def networks(self) -> list[UNet]:
        """The networks, loaded, still on the CPU."""
        return [
            load_network(self.model, member, self._device, self._exact, self._one_channel)
            for member in self.config.members
        ]

    def one_pass(self, network: UNet) -> Callable[[Tensor], Tensor]:
        """The network as the sliding window calls it: precision and augmentation decided."""

        def run(x: Tensor) -> Tensor:
            logits: Tensor = network(x)
            return logits if self._exact else logits.float()

        return mirrored(run, self.config.mirror_axes) if self._tta else run

    def buffers(self, scan: Image, probabilities: bool) -> Buffers:
        """What a scan takes of a GPU besides the networks; ``probabilities``: not labels alone."""
        config = self.config
        shape = tuple(scan.voxels.shape[i] for i in config.transpose)
        spacing = tuple(scan.spacing_zyx[i] for i in config.transpose)
        if self._exact:
            return whole_buffers(shape, spacing, config, self.heads)
        return stream_buffers(shape, spacing, config, self.heads, probabilities)

    def needs(self) -> Needs:
        """What its networks need on a GPU, found on the meta device."""
        config = self.config
        network = build_network(replace(config.network, heads=self.heads))
        with LiveBytes():  # weights are computed with, too: as cheaply as the network's tensors
            arrange(network, self._device, compute_dtype(self._device, self._exact), self._exact)
        weights = sum(p.nbytes for p in network.parameters()) * len(config.members)
        shape = (1, config.network.input_channels, *config.patch_size)
        _, window = peak_of(self.one_pass(network), shape)
        return Needs(weights, len(config.members), window, config.patch_size)
