"""PlainConvUNet and ResidualEncoderUNet, with nnU-Net's parameter names.

The operations and their order are those of dynamic_network_architectures 0.4.4, so that the same
weights give the same logits. Deep supervision heads and dropout do nothing at inference: left out.
A network of two dimensions takes windows of one section, and its kernels are one section deep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.layout import Joint, lay_together
from app.model import Network


class InstanceNorm(nn.InstanceNorm3d):
    """Instance norm, then leaky ReLU, that overwrite their input: one activation less is alive.

    ``fused`` does all of it at once where it is set. Otherwise torch's own operations do, to whose
    kernel the channels of every sample are the channels of one batch norm. Inference only.
    """

    fused: Callable[..., Tensor] | None = None

    def forward(
        self,
        x: Tensor,
        negative_slope: float | None = None,
        residual: Tensor | None = None,
        joint: Joint | None = None,
    ) -> Tensor:
        if self.fused is not None:
            x = lay_together(x, x.dtype)
            residual = None if residual is None else lay_together(residual, x.dtype)
        skip = None if joint is None else joint.skip(x)
        if self.fused is not None:
            return self.fused(x, self.weight, self.bias, self.eps, negative_slope, residual, skip)
        x = self._normalise(x)
        if residual is not None:
            x += residual
        if negative_slope is not None:
            x = F.leaky_relu_(x, negative_slope)
        if skip is not None:
            skip.copy_(x)
        return x

    def _normalise(self, x: Tensor) -> Tensor:
        # Channels that lie together do so within a sample only.
        as_one = x.is_contiguous() or len(x) == 1
        parts = (x.view(1, -1, *x.shape[2:]),) if as_one else x.split(1)
        weight, bias = (p.repeat(len(x) // len(parts)) for p in (self.weight, self.bias))
        for part in parts:
            out = part, *(p.new_empty(p.shape) for p in (weight, bias))  # mean, inverse deviation
            torch.native_batch_norm(part, weight, bias, None, None, True, 0.0, self.eps, out=out)
        return x


@dataclass
class Unfinished:
    """The output of a layer's convolution, whose norm and activation are still to come.

    Until then nobody need hold what the convolution read.
    """

    x: Tensor
    norm: InstanceNorm
    negative_slope: float | None
    residual: Tensor | None

    def finish(self, joint: Joint | None = None) -> Tensor:
        """The layer's output, which goes into ``joint``, too, if there is one."""
        return cast(Tensor, self.norm(self.x, self.negative_slope, self.residual, joint))


class SectionConv(nn.Conv3d):
    """A convolution of one section, rounded as torch's convolution in two dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        weight, stride, padding = self.weight[:, :, 0], self.stride[1:], self.padding[1:]
        made = F.conv2d(x[:, :, 0], weight, self.bias, stride, cast("tuple[int, int]", padding))
        return made[:, :, None]


def conv_class(config: Network) -> type[nn.Conv3d]:
    """What convolves: of volumes, or of sections, which are volumes of one."""
    return SectionConv if config.dimensions == 2 else nn.Conv3d


class ConvNormAct(nn.Module):
    """Convolution with 'same' padding, instance norm, leaky ReLU (``activate=False``: none).

    The convolution's weights decide in which precision it computes.
    """

    def __init__(
        self,
        config: Network,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
        bias: bool | None = None,
        activate: bool = True,
    ) -> None:
        super().__init__()
        kz, ky, kx = kernel
        padding = ((kz - 1) // 2, (ky - 1) // 2, (kx - 1) // 2)
        bias = config.conv_bias if bias is None else bias
        conv = conv_class(config)
        self.conv = conv(channels_in, channels_out, kernel, stride, padding, bias=bias)
        self.norm = InstanceNorm(channels_out, eps=config.norm_eps, affine=True)
        self.negative_slope = config.negative_slope if activate else None

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x).finish()

    def convolve(self, x: Tensor, residual: Tensor | None = None) -> Unfinished:
        """The convolution alone; ``residual`` is added before the activation."""
        x = self.conv(x.to(self.conv.weight.dtype))
        return Unfinished(x, self.norm, self.negative_slope, residual)


class StackedConvs(nn.Module):
    """``count`` convolutions, the first of which may be strided."""

    def __init__(
        self,
        config: Network,
        count: int,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        first = ConvNormAct(config, channels_in, channels_out, kernel, stride)
        rest = [ConvNormAct(config, channels_out, channels_out, kernel) for _ in range(count - 1)]
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x: Tensor | Joint) -> Tensor:
        return self.convolve(x).finish()

    def convolve(self, x: Tensor | Joint) -> Unfinished:
        """All but the last norm and activation."""
        return _convolve(self.convs, x)


class AvgPool(nn.AvgPool3d):
    """Average pooling, in float32 where the scan is bfloat16: torch has no such kernel for CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not torch.bfloat16:
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


class BasicBlockD(nn.Module):
    """Residual block of ResNet-D: the skip is average-pooled, then projected (He et al. 2019)."""

    def __init__(
        self,
        config: Network,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(config, channels_in, channels_out, kernel, stride)
        self.conv2 = ConvNormAct(config, channels_out, channels_out, kernel)
        skip: list[nn.Module] = []
        if stride != (1, 1, 1):
            skip.append(AvgPool(stride, stride))
        if channels_in != channels_out:
            skip.append(
                ConvNormAct(
                    config, channels_in, channels_out, (1, 1, 1), bias=False, activate=False
                )
            )
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x).finish()

    def convolve(self, x: Tensor) -> Unfinished:
        """All but the last norm, the sum and its activation."""
        residual = self.skip(x)
        return self.conv2.convolve(self.conv1(x), residual)


class StackedBlocks(nn.Module):
    """``count`` residual blocks, the first of which may be strided."""

    def __init__(
        self,
        config: Network,
        count: int,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int],
    ) -> None:
        super().__init__()
        first = BasicBlockD(config, channels_in, channels_out, kernel, stride)
        rest = [BasicBlockD(config, channels_out, channels_out, kernel) for _ in range(count - 1)]
        self.blocks = nn.Sequential(first, *rest)

    def convolve(self, x: Tensor) -> Unfinished:
        """All but the last norm, the sum and its activation."""
        return _convolve(self.blocks, x)


class Stage(nn.Sequential):
    """nnU-Net's names have this level around a stack of convolutions."""

    def convolve(self, x: Tensor) -> Unfinished:
        """All but the last norm and activation."""
        return _convolve(self, x)


class PlainConvEncoder(nn.Module):
    """One stack of convolutions per stage; returns the last output, and the others as joints."""

    def __init__(self, config: Network) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        channels = config.input_channels
        for features, kernel, stride, count in _stages(config):
            convs = StackedConvs(config, count, channels, features, kernel, stride)
            stages.append(Stage(convs))
            channels = features
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Joint]]:
        return _outputs(self.stages, x)


class ResidualEncoder(nn.Module):
    """A convolution at full resolution, then one stack of residual blocks per stage."""

    def __init__(self, config: Network) -> None:
        super().__init__()
        channels = config.features[0]
        self.stem = StackedConvs(config, 1, config.input_channels, channels, config.kernel_sizes[0])
        stages: list[nn.Module] = []
        for features, kernel, stride, count in _stages(config):
            stages.append(StackedBlocks(config, count, channels, features, kernel, stride))
            channels = features
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Joint]]:
        return _outputs(self.stages, self.stem(x))


class Upsampling(nn.ConvTranspose3d):
    """Transposed convolution whose kernel is its stride, into half of a joint."""

    def forward(self, x: Tensor, out: Tensor) -> None:  # type: ignore[override]
        out.copy_(super().forward(x))


class SectionUpsampling(Upsampling):
    """The same of one section, rounded as torch's transposed convolution in two dimensions."""

    def forward(self, x: Tensor, out: Tensor) -> None:  # type: ignore[override]
        stride = self.stride[1:]
        made = F.conv_transpose2d(x[:, :, 0], self.weight[:, :, 0], self.bias, stride)
        out.copy_(made[:, :, None])


class UNetDecoder(nn.Module):
    """Upsampling into the joint with the skip, convolutions; logits at the end."""

    def __init__(self, config: Network) -> None:
        super().__init__()
        transpconvs: list[nn.Module] = []
        stages: list[nn.Module] = []
        upsampling = SectionUpsampling if config.dimensions == 2 else Upsampling
        for level in range(len(config.features) - 2, -1, -1):  # coarse to fine
            below, features = config.features[level + 1], config.features[level]
            stride = config.strides[level + 1]
            transpconvs.append(upsampling(below, features, stride, stride, bias=config.conv_bias))
            count = config.decoder_convs[len(stages)]
            kernel = config.kernel_sizes[level]
            stages.append(StackedConvs(config, count, 2 * features, features, kernel))
        self.transpconvs = nn.ModuleList(transpconvs)
        self.stages = nn.ModuleList(stages)
        # nnU-Net has a head per stage for deep supervision; inference reads the last one.
        head = conv_class(config)(config.features[0], config.heads, 1, bias=True)
        self.seg_layers = nn.ModuleDict({str(len(stages) - 1): head})

    def forward(self, encoded: tuple[Tensor, list[Joint]]) -> Tensor:
        x, joints = encoded
        del encoded
        for transpconv, stage in zip(self.transpconvs, self.stages, strict=True):
            joint = joints.pop()
            transpconv(x, joint.upsampled())
            x = stage(joint)
        (head,) = self.seg_layers.values()
        return cast(Tensor, head(x))


class UNet(nn.Module):
    """(batch, channels, z, y, x) to logits (batch, heads, z, y, x)."""

    def __init__(self, config: Network) -> None:
        super().__init__()
        residual = config.name == "ResidualEncoderUNet"
        self.encoder: nn.Module = ResidualEncoder(config) if residual else PlainConvEncoder(config)
        self.decoder = UNetDecoder(config)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.encoder(x)))

    @property
    def first(self) -> nn.Conv3d:
        """The convolution that sees the scan."""
        return next(m for m in self.modules() if isinstance(m, nn.Conv3d))

    @property
    def head(self) -> nn.Conv3d:
        """The convolution that makes the logits."""
        (head,) = self.decoder.seg_layers.values()
        return cast(nn.Conv3d, head)


def build_network(config: Network) -> UNet:
    """The network on the meta device: parameters have shapes and no memory until assigned."""
    with torch.device("meta"):
        return UNet(config).eval()


def fold_two_class_head(network: UNet) -> None:
    """Turn a two-class head into one channel: the lesion's logit minus the background's.

    The larger of two logits is the sign of their difference, and the linear steps that follow
    commute with taking it.
    """
    head = network.head
    assert head.out_channels == 2
    assert head.bias is not None
    weight, bias = head.weight.detach(), head.bias.detach()
    head.weight = nn.Parameter(weight[1:] - weight[:1], requires_grad=False)
    head.bias = nn.Parameter(bias[1:] - bias[:1], requires_grad=False)
    head.out_channels = 1


def drop_cancelled_biases(network: UNet) -> None:
    """Take away the biases that instance norm subtracts again with the mean."""
    for module in network.modules():
        if isinstance(module, ConvNormAct):
            module.conv.bias = None


def _stages(
    config: Network,
) -> list[tuple[int, tuple[int, int, int], tuple[int, int, int], int]]:
    return list(
        zip(
            config.features,
            config.kernel_sizes,
            config.strides,
            config.encoder_blocks,
            strict=True,
        )
    )


def _outputs(stages: nn.Sequential, x: Tensor) -> tuple[Tensor, list[Joint]]:
    """The last stage's output, and those of the others, finest first, as the decoder wants them."""
    layers = list(stages.children())
    joints = [Joint() for _ in layers[1:]]
    for stage, joint in zip(layers, [*joints, None], strict=True):
        unfinished = cast(StackedConvs, stage).convolve(x)
        del x  # its memory is wanted for the joint
        x = unfinished.finish(joint)
        del unfinished
    return x, joints


def _convolve(layers: nn.Sequential, x: Tensor | Joint) -> Unfinished:
    """Layer after layer, all but the last one's norm and activation."""
    *others, last = layers.children()
    for layer in others:
        x = layer(x.take() if isinstance(x, Joint) else x)
    return cast(ConvNormAct, last).convolve(x.take() if isinstance(x, Joint) else x)
