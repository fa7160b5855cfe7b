"""The exported-model format: the one owner of ``model.json`` and of what its fields mean.

A model is a folder: ``model.json`` says how a scan is prepared, which network runs and what its
channels mean; one ``.safetensors`` file per ensemble member holds the weights under nnU-Net's own
parameter names. An ensemble over configurations holds the other models, and a cascade its first
stage, in folders below. All axes are in the network's order, that is after ``transpose``.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from app.model_rules import READERS, broken_rule, broken_size_rule
from volumes.errors import UserError
from volumes.files import STRANGERS_JSON_BYTES, read_json, sha256, write_whole

FORMAT_VERSION = 1
MANIFEST = "model.json"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
DEFAULT = "default"  # the file in WEIGHTS that names the model to use


class ModelError(UserError):
    """One line for the user: which file, what was found, what to do."""


@dataclass(frozen=True)
class Normalization:
    """How one input channel is normalised; nnU-Net's scheme names.

    The numbers are nnU-Net's foreground intensity properties, used by CTNormalization only.
    """

    scheme: str
    use_mask: bool
    mean: float | None = None
    std: float | None = None
    percentile_00_5: float | None = None
    percentile_99_5: float | None = None


@dataclass(frozen=True)
class Resampling:
    """nnU-Net's resampling functions.

    ``default`` is ``resample_data_or_seg_to_shape`` (spline of ``order``, nearest across a
    separated axis), ``torch`` is ``resample_torch_fornnunet`` (always linear).
    """

    function: str
    order: int
    force_separate_z: bool | None


@dataclass(frozen=True)
class Network:
    """Everything that builds the network; one entry per stage, finest first."""

    name: str
    input_channels: int
    heads: int
    features: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, int, int], ...]
    strides: tuple[tuple[int, int, int], ...]
    encoder_blocks: tuple[int, ...]  # convolutions (PlainConvUNet) or residual blocks per stage
    decoder_convs: tuple[int, ...]
    conv_bias: bool
    norm_eps: float
    negative_slope: float
    dimensions: int = 3  # 2: it sees one section at a time, and all its kernels are as deep as that


@dataclass(frozen=True)
class Member:
    """One set of weights of the ensemble."""

    file: str
    sha256: str
    source: str  # which trained folder, fold, checkpoint and epoch it came from


@dataclass(frozen=True)
class LesionFilter:
    """Which connected components of lesion voxels stay in the mask; for models of two classes.

    A component (26-connected, on the network's grid) stays if it has ``min_volume_ml`` at least and
    its most likely voxel ``min_probability`` at least. ``evidence``: what that did to which cases.
    """

    min_volume_ml: float
    min_probability: float
    evidence: str


@dataclass(frozen=True)
class Postprocessing:
    """What nnU-Net's apply_postprocessing does to a mask.

    Of each group of label values, one group after the other, only the largest component stays.
    ``source``: the file that says so.
    """

    keep_largest: tuple[tuple[int, ...], ...]
    source: str

    def __str__(self) -> str:
        groups = (" and ".join(map(str, group)) for group in self.keep_largest)
        return f"only the largest component of label {', then of '.join(groups)} ({self.source})"


@dataclass(frozen=True)
class PreviousStage:
    """A cascade: the labels of the model in ``folder`` are further channels of this one's input.

    One channel for each of ``labels``, 1 where the scan has that label; resampled as nnU-Net's
    ``resample_data_or_seg_to_shape`` does it with labels.
    """

    folder: str
    labels: tuple[int, ...]
    force_separate_z: bool | None


@dataclass(frozen=True)
class ModelConfig:
    """The content of ``model.json``."""

    name: str
    dataset: str
    plans: str
    configuration: str
    trainer: str
    channels: tuple[str, ...]
    labels: tuple[str, ...]  # name of each head: class names, or region names
    region_values: tuple[int, ...] | None  # what each region paints, in order; None for classes
    transpose: tuple[int, int, int]  # nnU-Net's transpose_forward
    spacing: tuple[float | None, float, float]  # mm; across sections that of the scan where None
    patch_size: tuple[int, int, int]
    normalization: tuple[Normalization, ...]  # one per channel
    resample_data: Resampling
    resample_logits: Resampling
    mirror_axes: tuple[int, ...]  # empty: test-time augmentation was not allowed in training
    dtype: str
    network: Network
    members: tuple[Member, ...]
    notice: str | None = None  # said to whoever runs the model
    lesion_filter: LesionFilter | None = None
    reader: str = READERS[0]  # nnU-Net's image_reader_writer, whose axes are the scan's
    postprocessing: Postprocessing | None = None
    ensemble: tuple[str, ...] = ()  # folders of models whose probabilities are averaged with its
    previous_stage: PreviousStage | None = None

    def spacing_on(self, scan_spacing: Sequence[float]) -> tuple[float, float, float]:
        """Spacing (mm) of the network's grid for a scan, in the network's order of axes."""
        across, y, x = self.spacing
        return scan_spacing[0] if across is None else across, y, x


@dataclass(frozen=True)
class Model:
    """An exported model on disk, the other models of its ensemble, and a cascade's first stage."""

    folder: Path
    config: ModelConfig
    others: tuple[Model, ...] = ()
    previous: Model | None = None

    def weights_file(self, member: Member) -> Path:
        """The member's ``.safetensors`` file."""
        return self.folder / member.file

    def check_weights(self) -> None:
        """Raise ModelError unless every weights file is there with the manifest's checksum."""
        for model in self.stages():
            for member in model.config.members:
                _check_weights(model.weights_file(member), member.sha256)

    def stages(self) -> Iterator[Model]:
        """All models that a scan goes through, in order: each after the stage before it."""
        for model in (self, *self.others):
            if model.previous is not None:
                yield from model.previous.stages()
            yield model


def save_manifest(folder: Path, config: ModelConfig) -> None:
    """Check ``config`` and write it into ``folder``, whole or not at all; raises ModelError."""
    manifest = folder / MANIFEST
    _check(manifest, _parse(manifest, ModelConfig, dataclasses.asdict(config), ""))
    content = {"format_version": FORMAT_VERSION, **dataclasses.asdict(config)}
    write_whole(manifest, json.dumps(content, indent=1) + "\n")


def find_model(name: str | None) -> Path:
    """The folder of a model: one of weights/ by its name, or a path.

    None: the one that weights/default names, else the only one there. Raises ModelError.
    """
    if name is not None:
        known = WEIGHTS / name
        return known if (known / MANIFEST).is_file() else Path(name)
    default = WEIGHTS / DEFAULT
    if default.is_file():
        named = WEIGHTS / default.read_text().strip()
        if (named / MANIFEST).is_file():
            return named
        raise ModelError(f"{default}: names {named.name}, which is no model beside it; mend that")
    models = sorted(m.parent for m in WEIGHTS.glob(f"[!.]*/{MANIFEST}"))
    if len(models) == 1:
        return models[0]
    found = ", ".join(m.name for m in models) or "none"
    raise ModelError(
        f"{WEIGHTS}: expected one model, found {found}; choose one with --model, or write its name"
        f" into {default}"
    )


def load_model(folder: Path) -> Model:
    """Read and check ``folder/model.json``; the weights are for `Model.check_weights`.

    Raises ModelError with one line that names the file, the finding and the remedy.
    """
    manifest = folder / MANIFEST
    try:
        content = read_json(manifest, STRANGERS_JSON_BYTES)
    except FileNotFoundError:
        raise ModelError(
            f"{folder}: no {MANIFEST} here; export a model with `python -m training.export`"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{manifest}: cannot be read ({error}); export the model again") from None
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{manifest}: format version {version}, this app reads {FORMAT_VERSION}; "
            "export the model again"
        )
    config = _parse(manifest, ModelConfig, content, "")
    _check(manifest, config)
    others = tuple(load_model(folder / name) for name in config.ensemble)
    stage = config.previous_stage
    model = Model(folder, config, others, stage and load_model(folder / stage.folder))
    _check_together(manifest, model)
    return model


def _check_weights(file: Path, expected: str) -> None:
    if not file.is_file():
        raise ModelError(f"{file}: is missing; copy it beside {MANIFEST} or export the model again")
    try:
        found = sha256(file)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); check permissions") from None
    if found != expected:
        raise ModelError(f"{file}: SHA-256 differs from {MANIFEST}; copy or export the model again")


def _parse(manifest: Path, kind: Any, value: Any, where: str) -> Any:
    """Build ``kind`` (a dataclass or a type of the fields above) from plain JSON."""

    def fail(expected: str) -> ModelError:
        return ModelError(
            f"{manifest}: '{where}' should be {expected}, found {reprlib.repr(value)}; "
            "export the model again"
        )

    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise fail("an object")
        hints = get_type_hints(kind)
        required = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
        missing, unknown = sorted(required - value.keys()), sorted(value.keys() - hints.keys())
        if missing or unknown:
            raise ModelError(
                f"{manifest}: {where or 'the top level'} lacks {missing}, has unknown {unknown}; "
                "export the model again"
            )
        prefix = f"{where}." if where else ""
        parsed = {k: _parse(manifest, hints[k], v, prefix + k) for k, v in value.items()}
        return kind(**parsed)  # type: ignore[operator]
    args = get_args(kind)
    if type(None) in args:
        return None if value is None else _parse(manifest, args[0], value, where)
    if args:  # a tuple
        if not isinstance(value, (list, tuple)):
            raise fail("a list")
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) != len(value):
            raise fail(f"a list of {len(args)}")
        return tuple(
            _parse(manifest, a, v, f"{where}[{i}]")
            for i, (a, v) in enumerate(zip(args, value, strict=True))
        )
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind is float or type(value) is not kind:
        names = {int: "an integer", str: "text", bool: "true or false"}
        raise fail(names.get(kind, "a finite number"))
    return value


def _check_together(manifest: Path, model: Model) -> None:
    """Checks of models that are used together."""
    same: tuple[str, ...] = ("channels", "reader", "labels", "region_values")
    parts = [(other, same) for other in model.others]
    if model.previous is not None:
        parts.append((model.previous, same[:2]))
    for part, fields in parts:
        name = part.folder.name
        for field in fields:
            ours, theirs = getattr(model.config, field), getattr(part.config, field)
            if ours != theirs:
                raise ModelError(
                    f"{manifest}: has {name} with {field} {theirs!r:.80}, not {ours!r:.80}; "
                    "export models of one dataset together"
                )
        if part.config.postprocessing is not None:
            raise ModelError(
                f"{manifest}: has {name} with postprocessing; only the whole may have it"
            )
        if part.others:
            raise ModelError(f"{manifest}: has {name}, an ensemble itself; export its models apart")
    if parts and any(part.config.lesion_filter for part in model.stages()):
        raise ModelError(
            f"{manifest}: has a lesion filter, which is for a model alone; set it to null"
        )


def _check(manifest: Path, config: ModelConfig) -> None:
    """Checks that types cannot express."""
    # The other rules take those of sizes for granted.
    rule = broken_size_rule(config) or broken_rule(config)
    if rule is not None:
        raise ModelError(f"{manifest}: breaks the rule that {rule}; export the model again")
