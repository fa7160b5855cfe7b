"""Networks as they will run: weights read, precision decided, what inference can spare left out."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from app.channels_last import arrange_channels_last
from app.model import Member, Model, ModelError
from app.networks import UNet, build_network, drop_cancelled_biases, fold_two_class_head


def find_device(name: str) -> torch.device:
    """``cuda``, ``cpu``, or for ``auto`` a GPU if one is usable; ModelError if cuda is not.

    Raises ValueError for another name.
    """
    if name not in ("auto", "cuda", "cpu"):
        raise ValueError(f"device {name!r} is none of auto, cuda, cpu")
    if torch.cuda.is_available() and name != "cpu":
        return torch.device("cuda")
    if name == "cuda":
        raise ModelError("--device cuda: no usable NVIDIA GPU (is the container run with --gpus?)")
    return torch.device("cpu")


def compute_dtype(device: torch.device, exact: bool) -> torch.dtype:
    """What convolutions compute in: nnU-Net's autocast on CUDA, float32 on a CPU when exact."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if not exact and cpu_has_bfloat16() else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively; emulated, it is slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def load_network(
    model: Model, member: Member, device: torch.device, exact: bool, one_channel: bool
) -> UNet:
    """One member, still on the CPU: convolutions in `compute_dtype`, instance norms in float32.

    ``one_channel``: of two classes only the difference of their logits. Unless ``exact``, biases
    that cancel are left out. A voxel's channels lie together on a GPU, and unless ``exact`` on a
    CPU, as fast kernels want them. Raises ModelError if the weights do not fit the network.
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
    arrange(network, device, compute_dtype(device, exact), exact)
    return network


def arrange(network: UNet, device: torch.device, dtype: torch.dtype, exact: bool) -> None:
    """Decide, in place, precision, layout for ``device``, and what is left out."""
    set_precision(network, dtype)
    if not exact:
        drop_cancelled_biases(network)
    if device.type == "cuda":
        arrange_channels_last(network)
    elif not exact:
        lay_channels_together(network)


def lay_channels_together(network: UNet) -> None:
    """Let a voxel's channels be neighbours in memory, in weights and so in what they make."""
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]


def set_precision(network: UNet, dtype: torch.dtype) -> None:
    """Let convolutions compute in ``dtype``.

    With bfloat16 the first one stays in float32: eight bits would round a scan to some 4 HU, which
    instance norm amplifies where a patch is nearly constant, in air for example.
    """
    for module in network.modules():
        keep = module is network.first and dtype is torch.bfloat16
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)) and not keep:
            module.to(dtype)
