"""nnU-Net's postprocessing.pkl, or its twin in JSON, read without running what is in it.

nnU-Net (`nnUNetv2_find_best_configuration`, `nnUNetv2_determine_postprocessing`) writes both beside
the predictions that it was determined on.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.model import Postprocessing
from training.errors import TrainingError
from training.files import read_json
from volumes.files import STRANGERS_JSON_BYTES, reading

NONE = "none"  # given for a file: there is to be none
_KEEP_LARGEST = "remove_all_but_largest_component_from_segmentation"
_REMEDY = f"give the file that nnU-Net wrote, or leave it out with --postprocessing {NONE}"
_MOST_BYTES = 2**20


def postprocessing_of(
    folders: Sequence[Path], checkpoints: Sequence[Path], given: str | None
) -> tuple[Postprocessing | None, list[str]]:
    """What is done to the masks of an ensemble, and warnings of what is not.

    ``given``: a file, or NONE. By default it is that of the cross-validation of the same folds,
    where these are all of one folder; one that holds for other members is named in a warning.
    Raises TrainingError.
    """
    if given is not None:
        return (None if given == NONE else read_postprocessing(Path(given))), []
    found: dict[Path, Path] = {}  # of each folder
    for folder in folders:
        for suffix in ("json", "pkl"):  # nnU-Net itself applies the latter
            found |= {f.parent: f for f in folder.glob(f"**/postprocessing.{suffix}")}
    folds = sorted((c.parent.name for c in checkpoints), key=lambda name: (len(name), name))
    same = f"crossval_results_folds_{'_'.join(f.removeprefix('fold_') for f in folds)}"
    if len(folders) == 1 and folders[0] / same in found:
        return read_postprocessing(found[folders[0] / same]), []
    return None, [
        f"{file}: is nnU-Net's postprocessing of other members than those exported, and left out; "
        f"take it with --postprocessing FILE, or say {NONE} there"
        for file in found.values()
        if read_postprocessing(file) is not None
    ]


def read_postprocessing(file: Path) -> Postprocessing | None:
    """What a file says is to be done; None where nothing is. Raises TrainingError."""
    functions, arguments = (_from_json if file.suffix == ".json" else _from_pickle)(file)
    try:
        if any(function != _KEEP_LARGEST for function in functions):
            raise TrainingError(f"{file}: asks for more than {_KEEP_LARGEST}; {_REMEDY}")
        groups = [_group(**given) for _, given in zip(functions, arguments, strict=True)]
    except (AttributeError, TypeError, ValueError) as error:
        raise TrainingError(f"{file}: is not nnU-Net's ({error!s:.80}); {_REMEDY}") from None
    source = f"{file.resolve().parent.name}/{file.name}"
    return Postprocessing(tuple(groups), source) if groups else None


def _group(labels_or_regions: Any, background_label: int = 0) -> tuple[int, ...]:
    """The labels that are taken together: of a label, a region, or a list of these."""
    if background_label != 0:
        raise ValueError(f"background_label is {background_label}, expected 0")
    values = [v for each in _listed(labels_or_regions) for v in _listed(each)]
    return tuple(dict.fromkeys(int(v) for v in values))


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _from_json(file: Path) -> tuple[Any, Any]:
    content = read_json(file, _REMEDY, STRANGERS_JSON_BYTES)
    try:
        return content["postprocessing_fns"], content["postprocessing_kwargs"]
    except KeyError as error:
        raise TrainingError(f"{file}: has no {error}; {_REMEDY}") from None


def _from_pickle(file: Path) -> tuple[Any, Any]:
    try:
        with reading(file) as opened:
            functions, arguments = _Reader(io.BytesIO(opened.read(_MOST_BYTES))).load()
        return functions, arguments
    except Exception as error:  # damaged bytes make pickle raise almost anything
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{file}: is not loaded ({reason}); {_REMEDY}") from None


# The one in C makes room for whatever number a file gives to a thing, and both for an array of
# bytes as long as it says.
class _Reader(pickle._Unpickler):
    """Makes lists, dicts, tuples, numbers and text alone: of other things it knows two names."""

    dispatch = pickle._Unpickler.dispatch.copy()
    del dispatch[pickle.BYTEARRAY8[0]]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("nnunetv2.postprocessing.remove_connected_components", _KEEP_LARGEST):
            return name  # not the function
        if (module, name) == ("numpy", "dtype"):
            return _Integer
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _Integer.value
        raise pickle.UnpicklingError(f"it would run {module}.{name}")


class _Integer:
    """Stands for one of NumPy's types of integers."""

    def __init__(self, name: str, *_: object) -> None:
        self.kind, self.size = name[:1], int(name[1:])
        if self.kind not in "iu":
            raise ValueError(f"a label is of NumPy's type {name}")

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.order: Any = "big" if state[1] == ">" else "little"

    def value(self, raw: bytes) -> int:
        """A number of this type."""
        return int.from_bytes(raw, self.order, signed=self.kind == "i")
