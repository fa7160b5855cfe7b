"""Where a tensor's channels lie: side by side (channels last), and a skip beside what it joins."""

from __future__ import annotations

import torch
from torch import Tensor

LAST = torch.channels_last_3d


def lay_together(x: Tensor, dtype: torch.dtype) -> Tensor:
    """``x`` (n, channels, z, y, x) in ``dtype`` with strides that say channels last.

    A single channel is contiguous in both layouts, and torch takes it for the other one.
    """
    if x.dtype is dtype and x.stride(1) == 1 and x.is_contiguous(memory_format=LAST):
        return x
    return torch.empty(x.shape, dtype=dtype, device=x.device, memory_format=LAST).copy_(x)


class Joint:
    """What convolutions of the decoder read: the upsampled half first, the skip behind it.

    One tensor from the start, so that nothing is concatenated.
    """

    tensor: Tensor

    def skip(self, like: Tensor) -> Tensor:
        """The half for an output of the encoder, of the shape, type and layout of ``like``."""
        batch, channels, *size = like.shape
        shape = (batch, 2 * channels, *size)
        # A tensor of one channel is contiguous in both layouts: then it does not matter which.
        layout = torch.contiguous_format if like.is_contiguous() else LAST
        self.tensor = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
        return self.tensor[:, channels:]

    def upsampled(self) -> Tensor:
        """The other half."""
        return self.tensor[:, : self.tensor.shape[1] // 2]

    def take(self) -> Tensor:
        """Both, and let go of them: whoever calls the first convolution holds nothing else."""
        tensor = self.tensor
        del self.tensor
        return tensor
