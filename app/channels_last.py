"""The same networks, arranged for a GPU: a voxel's channels lie together from first to last.

Tensor cores read channels of a voxel side by side (channels_last_3d); every operation that asks for
another layout costs a copy of its input and of its output. So here a convolution that looks at one
voxel only is a matrix product of voxels and channels, as is a transposed convolution whose kernel
is its stride, which writes into the joint; pooling and the projection behind it are one strided
convolution; a norm, its residual and its activation are one kernel where there is one.

Arithmetic is that of app.networks but for the rounding of what is not stored in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from app.kernels.norm import NormKernel
from app.layout import LAST, lay_together
from app.networks import AvgPool, BasicBlockD, ConvNormAct, InstanceNorm, UNet, Upsampling


def arrange_channels_last(network: UNet) -> None:
    """Rearrange, in place, a network whose weights are loaded or on the meta device."""
    dtype = network.first.weight.dtype
    network.to(memory_format=LAST)  # type: ignore[call-overload]
    for module in list(network.modules()):
        if isinstance(module, BasicBlockD):
            _project_in_one(module)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Upsampling):
                setattr(module, name, UpsamplingByMatrix(child))
            elif isinstance(child, nn.Conv3d) and child.kernel_size == (1, 1, 1) == child.stride:
                setattr(module, name, Pointwise(child))
            elif isinstance(child, AvgPool):
                setattr(module, name, PoolTogether(cast(Sequence[int], child.kernel_size)))
    network.encoder = Enter(network.encoder, dtype)


def fuse_norms(network: UNet, kernel: NormKernel | None) -> None:
    """Let ``kernel`` do every norm that it fits, with what follows; None: torch does all."""
    for module in network.modules():
        if isinstance(module, InstanceNorm):
            fits = kernel is not None and kernel.fits(module.num_features)
            module.fused = kernel if fits else None


class Enter(nn.Module):
    """The encoder for windows of any type and layout."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder, self.dtype = encoder, dtype

    def forward(self, x: Tensor) -> object:
        """(n, channels, z, y, x) to what the encoder gives."""
        return self.encoder(lay_together(x, self.dtype))


class Pointwise(nn.Module):
    """A convolution of one voxel: (voxels, channels in) times (channels in, channels out)."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.weight = _parameter(conv.weight.flatten(1))
        self.bias = None if conv.bias is None else _parameter(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels in, z, y, x) to (n, channels out, z, y, x)."""
        x = lay_together(x, self.weight.dtype)
        return F.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


class UpsamplingByMatrix(nn.Module):
    """A transposed convolution whose kernel is its stride: each voxel becomes a box of its own."""

    def __init__(self, conv: Upsampling) -> None:
        super().__init__()
        self.box = cast(Sequence[int], conv.kernel_size)
        self.weight = _parameter(conv.weight.movedim(1, -1).flatten(1))  # in, (z, y, x, out)
        voxels = self.weight.shape[1] // conv.out_channels
        self.bias = (
            None if conv.bias is None else _parameter(conv.bias.expand(voxels, -1).flatten())
        )

    def forward(self, x: Tensor, out: Tensor) -> None:
        """(n, channels in, z, y, x) into ``out``, whose channels lie together, too."""
        kz, ky, kx = self.box
        n, _, z, y, width = x.shape
        rows = x.movedim(1, -1).reshape(-1, x.shape[1])
        boxes = rows @ self.weight
        if self.bias is not None:
            boxes += self.bias
        made = boxes.view(n, z, y, width, kz, ky, kx, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        target = out.movedim(1, -1)
        target.unflatten(3, (width, kx)).unflatten(2, (y, ky)).unflatten(1, (z, kz)).copy_(made)


class PoolTogether(nn.Module):
    """Average pooling whose stride is its kernel; torch's own would leave channels last."""

    def __init__(self, box: Sequence[int]) -> None:
        super().__init__()
        self.box = box

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, z, y, x) to (n, channels, z / kz, y / ky, x / kx), the rest cut off."""
        kz, ky, kx = self.box
        z, y, width = (n // k for n, k in zip(x.shape[2:], self.box, strict=True))
        inner = x[:, :, : z * kz, : y * ky, : width * kx].movedim(1, -1)
        boxes = inner.unflatten(3, (width, kx)).unflatten(2, (y, ky)).unflatten(1, (z, kz))
        return torch.mean(boxes, (2, 4, 6)).movedim(-1, 1)


def _project_in_one(block: BasicBlockD) -> None:
    """Pooling, then a projection of voxels, as one convolution over the pooled boxes."""
    if len(block.skip) != 2:
        return
    pool, project = cast(AvgPool, block.skip[0]), cast(ConvNormAct, block.skip[1])
    box = cast(tuple[int, int, int], pool.kernel_size)
    conv = project.conv
    voxels = box[0] * box[1] * box[2]
    with torch.device("meta"):
        strided = nn.Conv3d(conv.in_channels, conv.out_channels, box, box, bias=False)
    weight = (conv.weight / voxels).expand(-1, -1, *box)
    strided.weight = _parameter(weight.contiguous(memory_format=LAST))
    project.conv = strided
    block.skip = nn.Sequential(project)


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(), requires_grad=False)
