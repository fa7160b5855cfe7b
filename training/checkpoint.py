"""nnU-Net's checkpoints, read without running what is in them."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from app.model import Network
from app.networks import build_network
from training.errors import TrainingError
from volumes.files import reading


class _Unused:
    """Stands for a value in a trainer's log or arguments, of which inference needs nothing."""

    def __new__(cls, *arguments: object) -> _Unused:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


# Values that a checkpoint may hold. None of them is made: each name that the file calls, in
# whichever version of NumPy or Python it was written, makes a stand-in.
_UNUSED = (
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.multiarray.{f}"
        for core in ("core", "_core")
        for f in ("scalar", "_reconstruct")
    ),
    *(
        f"{module}.{pure}{system}Path"
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for system in ("Posix", "Windows")
    ),
    "argparse.Namespace",
    "datetime.datetime",
    "datetime.timedelta",
)
# nnU-Net's networks register every module twice or thrice; these are the spare names.
_ALIAS = re.compile(r"^decoder\.encoder\.|\.all_modules\.")
_WRAPPER = re.compile(r"^(module\.|_orig_mod\.)+")


@dataclass(frozen=True)
class Checkpoint:
    """What inference needs of a checkpoint."""

    file: Path
    weights: dict[str, Tensor]
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    epoch: int | None  # those that were stripped for sharing do not say


def load_checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint; raises TrainingError if it is missing, damaged or holds foreign code."""
    try:
        _refuse_bomb(file)
        with torch.serialization.safe_globals([(_Unused, name) for name in _UNUSED]):
            content = torch.load(file, map_location="cpu", weights_only=True)
        epoch = content.get("current_epoch")
        return Checkpoint(
            file=file,
            weights={k: v for k, v in content["network_weights"].items() if torch.is_tensor(v)},
            trainer=content["trainer_name"],
            configuration=content["init_args"]["configuration"],
            mirror_axes=tuple(content.get("inference_allowed_mirroring_axes") or ()),
            epoch=epoch if isinstance(epoch, int) else None,
        )
    except TrainingError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it would run {found[1]}" if found else "it is damaged"
        raise TrainingError(
            f"{file}: is not loaded, {reason}; save it again with nnU-Net's own trainer"
        ) from None
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise TrainingError(f"{file}: is no nnU-Net v2 checkpoint ({error!r})") from None
    except Exception as error:  # damaged bytes make PyTorch raise almost anything
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"{file}: cannot be read ({reason}); copy it again") from None


def _refuse_bomb(file: Path) -> None:
    """Raise TrainingError for what torch would wait for, or unpack, without end."""
    with reading(file) as stream:
        if zipfile.is_zipfile(stream):
            size = stream.seek(0, os.SEEK_END)
            with zipfile.ZipFile(stream) as packed:
                unpacked = sum(one.file_size for one in packed.infolist())
            if unpacked > size:  # torch packs nothing
                raise TrainingError(
                    f"{file}: its parts unpack to {unpacked} bytes, it has {size}; "
                    "save it again with nnU-Net's own trainer"
                )


def inference_weights(checkpoint: Checkpoint, network: Network) -> dict[str, Tensor]:
    """The parameters that the network has, under its names; raises TrainingError if any differ."""
    expected = build_network(network).state_dict()
    given = {_WRAPPER.sub("", k): v for k, v in checkpoint.weights.items()}
    given = {k: v for k, v in given.items() if not _ALIAS.search(k)}
    if network.dimensions == 2:  # kernels become one section deep
        given = {k: v.unsqueeze(2) if v.ndim == 4 else v for k, v in given.items()}
    heads = {k for k in given if k.startswith("decoder.seg_layers.") and k not in expected}
    missing = sorted(expected.keys() - given.keys())
    extra = sorted(given.keys() - expected.keys() - heads)
    shapes = sorted(
        k for k in expected.keys() & given.keys() if given[k].shape != expected[k].shape
    )
    for problem, names in (("lacks", missing), ("has unexpected", extra), ("misshapes", shapes)):
        if names:
            raise TrainingError(
                f"{checkpoint.file}: {problem} {names[0]} (and {len(names) - 1} more) for the "
                f"network in plans.json; trainer {checkpoint.trainer} may have changed it"
            )
    return {k: given[k].contiguous() for k in expected}
