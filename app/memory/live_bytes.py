"""How many bytes of tensors are alive while something runs, followed one operation at a time.

On the meta device tensors have shapes and no memory, so the peak of a network is found in
milliseconds, before there is a GPU: lifetimes are those of the very code that will run.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_BLOCK = 512  # what torch's CUDA allocator rounds up to

_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
aten = torch.ops.aten


class LiveBytes(TorchDispatchMode):
    """While it is active: ``live`` bytes of storages made since, their ``peak``, and workspace.

    ``peak_with_workspace`` adds to every convolution as much as its output takes. Channels last,
    by hand on an H200, torch's allocator held 594 and 1252 MiB (5.6M and 101.9M) where 472 and 1103
    were alive: about one more output at full resolution (96 and 150).
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.peak_with_workspace = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler to skip it: two seconds

    def __torch_dispatch__(
        self, op: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one operation and count what it made."""
        kwargs = kwargs or {}
        result = _without_kernel(op, args, kwargs)
        if result is None and torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), _COMPOSITE):
            with self:  # inference mode hands over whole composites
                return op._op_dk(_COMPOSITE, *args, **kwargs)
        if result is None:
            result = op(*args, **kwargs)
        given = {t.untyped_storage()._cdata for t in _tensors((*args, *kwargs.values()))}
        made = list(_tensors([result]))
        for tensor in made:
            if tensor.untyped_storage()._cdata not in given:
                self._add(tensor)
        self.peak = max(self.peak, self.live)
        workspace = 0
        if op is aten.convolution.default:
            workspace = sum(t.nbytes for t in made)
        self.peak_with_workspace = max(self.peak_with_workspace, self.live + workspace)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, -(-storage.nbytes() // _BLOCK) * _BLOCK
        if key in self._storages:
            return

        def released(_: object) -> None:
            del self._storages[key]
            self.live -= size

        self._storages[key] = weakref.ref(storage, released)
        self.live += size


def peak_of(run: Callable[[Tensor], Tensor], shape: Sequence[int]) -> tuple[int, int]:
    """Peak of live bytes of ``run`` on a float32 meta tensor of ``shape``, the latter included.

    Returns it without and with the workspace of convolutions.
    """
    with torch.inference_mode(False), torch.no_grad(), LiveBytes() as bytes_:
        run(torch.empty(tuple(shape), device="meta"))
    return bytes_.peak, bytes_.peak_with_workspace


def _without_kernel(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What an operation gives on the meta device, for those that our networks consist of.

    torch has kernels for these; but the first call of one of them imports its compiler, which
    takes two seconds of a start. Any other operation goes there all the same: None.
    """
    first = args[0][0] if args and isinstance(args[0], (list, tuple)) else (args or (None,))[0]
    if not isinstance(first, Tensor) or first.device.type != "meta":
        return None
    if op._schema.name.endswith("_"):  # in place
        return first
    if op is aten.convolution.default:
        return first.new_empty(_convolved(*args[:8]))
    if op is aten.native_batch_norm.out:
        return kwargs["out"], kwargs["save_mean"], kwargs["save_invstd"]
    if op is aten.cat.default:
        shape, axis = list(first.shape), args[1] if len(args) > 1 else 0
        shape[axis] = sum(t.shape[axis] for t in args[0])
        return first.new_empty(shape)
    if op is aten.repeat.default:
        return first.new_empty([n * k for n, k in zip(first.shape, args[1], strict=True)])
    if op is aten.mm.default:
        return first.new_empty([len(first), args[1].shape[1]])
    if op is aten.addmm.default:
        return first.new_empty([len(args[1]), args[2].shape[1]])
    if op is aten.div.Tensor and not isinstance(args[1], Tensor):
        return first.new_empty(first.shape)
    if op is aten.mean.dim:
        return first.new_empty([n for axis, n in enumerate(first.shape) if axis not in args[1]])
    if op is aten.avg_pool3d.default:
        return first.new_empty(_pooled(first.shape, args[1]))
    return None


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
) -> list[int]:
    """Shape after a convolution without dilation, or a transposed one without padding."""
    kernel, shape = weight.shape[2:], x.shape[2:]
    if transposed:
        size = [(n - 1) * s + k for n, s, k in zip(shape, stride, kernel, strict=True)]
        return [len(x), weight.shape[1], *size]
    size = [
        (n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape, padding, kernel, stride, strict=True)
    ]
    return [len(x), len(weight), *size]


def _pooled(shape: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Shape after pooling whose stride is its kernel."""
    return [*shape[:2], *(n // k for n, k in zip(shape[2:], kernel, strict=True))]


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
