"""nnU-Net's own description of a model (plans.json, dataset.json) in the terms of the app.

Written from nnunetv2 2.8.1; nnU-Net need not be installed. What the app cannot reproduce is
refused by name rather than approximated.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.model import ModelConfig, Network, Normalization, PreviousStage, Resampling
from app.model_rules import (
    DATA_ORDERS,
    LOGITS_ORDERS,
    MOST_STAGES,
    NORMALIZATIONS,
    READERS,
    broken_size_rule,
)
from training.errors import TrainingError
from training.files import Json, read_json
from volumes.files import STRANGERS_JSON_BYTES

_NETWORK_MODULE = "dynamic_network_architectures.architectures"
_CLASSES = {  # the only operations whose arithmetic the app has, in so many dimensions
    "conv_op": "torch.nn.modules.conv.Conv{}d",
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm{}d",
    "nonlin": "torch.nn.LeakyReLU",
}
_COUNTS = ("three", "two")
_BLOCKS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
_REMEDY = (
    "give the folder that nnU-Net's training wrote (it holds plans.json, dataset.json, fold_X)"
)
_RESAMPLERS = {
    "resample_data_or_seg_to_shape": "default",
    "resample_torch_fornnunet": "torch",
}


def model_config(
    folder: Path, configuration: str, trainer: str, mirror_axes: tuple[int, ...], dtype: str
) -> ModelConfig:
    """The model of a trained folder, without members and name; raises TrainingError."""
    plans_file, dataset_file = folder / "plans.json", folder / "dataset.json"
    plans, dataset = (
        read_json(file, _REMEDY, STRANGERS_JSON_BYTES) for file in (plans_file, dataset_file)
    )
    with _naming(dataset_file):
        channels = tuple((dataset.get("channel_names") or dataset["modality"]).values())
        labels, region_values = label_heads(dataset)
        foreground = _foreground(dataset)
    with _naming(plans_file):
        settings = resolve_configuration(plans, configuration)
        _refuse_unsupported(plans, settings)
        previous, dimensions = _previous_stage(settings, foreground), len(settings["patch_size"])
        inputs = len(channels) + (len(foreground) if previous else 0)
        config = ModelConfig(
            name="",
            dataset=plans["dataset_name"],
            plans=plans["plans_name"],
            configuration=configuration,
            trainer=trainer,
            channels=tuple(str(c) for c in channels),
            labels=labels,
            region_values=region_values,
            transpose=_triple(plans["transpose_forward"]),
            spacing=_triple([float(s) for s in settings["spacing"]], dimensions, across=None),
            patch_size=_triple(settings["patch_size"], dimensions),
            normalization=_normalization(plans, settings, len(channels)),
            resample_data=_resampling(settings, "resampling_fn_data"),
            resample_logits=_resampling(settings, "resampling_fn_probabilities"),
            mirror_axes=tuple(axis + 3 - dimensions for axis in mirror_axes),
            dtype=dtype,
            network=network(settings, inputs, len(labels)),
            members=(),
            reader=plans.get("image_reader_writer", READERS[0]),
            previous_stage=previous,
        )
        if rule := broken_size_rule(config):  # before a network of such a size is built
            raise TrainingError(f"gives a model that breaks the rule that {rule}")
    return config


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Turn whatever is wrong with a file's content into one line that starts with its name."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{file}: {error}") from None
    except KeyError as error:
        raise TrainingError(f"{file}: has no {error}; is it from nnU-Net v2?") from None
    except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError) as error:
        raise TrainingError(f"{file}: is malformed ({error}); is it from nnU-Net v2?") from None
    except RecursionError:
        raise TrainingError(f"{file}: is nested too deeply; is it from nnU-Net v2?") from None


def resolve_configuration(plans: Json, name: str) -> Json:
    """A configuration with everything that it inherits."""
    chain: list[str] = []
    settings: Json = {}
    following: str | None = name
    while following is not None:
        if following not in plans["configurations"]:
            known = ", ".join(plans["configurations"])
            raise TrainingError(f"has no configuration {following!r}, only {known}")
        if following in chain:
            raise TrainingError(f"configurations inherit in a circle: {' -> '.join(chain)}")
        chain.append(following)
        settings = {**plans["configurations"][following], **settings}
        following = plans["configurations"][following].get("inherits_from")
    return settings


def label_heads(dataset: Json) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Names of the network's heads, and what each region paints (None: heads are classes).

    Labels may be text, which nnU-Net casts to integers, except where it fails with it.
    """
    labels: Json = dict(dataset["labels"])
    regions = any(isinstance(v, list) and len(v) > 1 for v in labels.values())
    order = dataset.get("regions_class_order")
    _refuse_text({**labels, "regions_class_order": order} if regions else labels, regions)
    ignore = labels.pop("ignore", None)
    if str(labels.get("background")) != "0":
        raise TrainingError("label 'background' should be 0 (nnU-Net v2's form)")
    if regions:
        names = tuple(n for n, v in labels.items() if v != 0 and v != [0])
        if order is None or len(order) != len(names):
            raise TrainingError(f"regions_class_order {order} does not fit the regions {names}")
        return names, tuple(order)
    values = {n: int(v[0] if isinstance(v, list) else v) for n, v in labels.items()}
    names = tuple(sorted(values, key=lambda n: values[n]))
    if [values[n] for n in names] != list(range(len(names))):
        raise TrainingError(f"labels should be 0, 1, 2, ..., found {values}")
    if ignore is not None and ignore != len(names):
        raise TrainingError(f"'ignore' should be {len(names)}, found {ignore}")
    return names, None


def _refuse_text(labels: Json, regions: bool) -> None:
    """Raise TrainingError for text where nnU-Net compares it with numbers and fails."""
    for name, value in labels.items():
        values = value if isinstance(value, list) else [value]
        if (regions or name == "ignore") and any(isinstance(v, str) for v in values):
            raise TrainingError(
                f"{name} is {value!r}, text, with which nnU-Net fails beside regions and as "
                "'ignore'; write numbers"
            )


def network(settings: Json, channels: int, heads: int) -> Network:
    """The network of a resolved configuration, of new plans or of those before nnU-Net 2.5."""
    if "architecture" not in settings:
        return _legacy_network(settings, channels, heads)
    path = settings["architecture"]["network_class_name"]
    name = path.rpartition(".")[2]
    if name not in _BLOCKS or not path.startswith(_NETWORK_MODULE):
        raise TrainingError(f"network class {path} is not supported, only {', '.join(_BLOCKS)}")
    kwargs = dict(settings["architecture"]["arch_kwargs"])
    dimensions = len(settings["patch_size"])
    for key, supported in _CLASSES.items():
        if kwargs.pop(key) != supported.format(dimensions):
            only = supported.format(dimensions)
            raise TrainingError(f"{key} is not supported unless it is {only}")
    for key in ("dropout_op", "dropout_op_kwargs", "deep_supervision"):
        kwargs.pop(key, None)  # without effect at inference
    norm = kwargs.pop("norm_op_kwargs") or {}
    nonlin = kwargs.pop("nonlin_kwargs") or {}
    if not norm.get("affine"):
        raise TrainingError("norm_op without affine parameters is not supported")
    stages = kwargs.pop("n_stages")
    built = Network(
        name=name,
        input_channels=channels,
        heads=heads,
        features=_per_stage(kwargs.pop("features_per_stage"), stages),
        kernel_sizes=_triples(kwargs.pop("kernel_sizes"), stages, dimensions),
        strides=_triples(kwargs.pop("strides"), stages, dimensions),
        encoder_blocks=_per_stage(kwargs.pop(_BLOCKS[name]), stages),
        decoder_convs=_per_stage(kwargs.pop("n_conv_per_stage_decoder"), stages - 1),
        conv_bias=kwargs.pop("conv_bias", False),
        norm_eps=norm.get("eps", 1e-5),
        negative_slope=nonlin.get("negative_slope", 0.01),
        dimensions=dimensions,
    )
    unknown = {k: v for k, v in kwargs.items() if v}  # null and false are the defaults
    if unknown:
        raise TrainingError(
            f"network arguments {unknown} are not supported, only nnU-Net's defaults for them"
        )
    return built


def _legacy_network(settings: Json, channels: int, heads: int) -> Network:
    name = settings["UNet_class_name"]
    if name not in _BLOCKS:
        raise TrainingError(f"network class {name} is not supported, only {', '.join(_BLOCKS)}")
    blocks, dimensions = settings["n_conv_per_stage_encoder"], len(settings["patch_size"])
    base, most = settings["UNet_base_num_features"], settings["unet_max_num_features"]
    stages = len(_per_stage(blocks, len(blocks)))
    return Network(
        name=name,
        input_channels=channels,
        heads=heads,
        features=tuple(min(base * 2**i, most) for i in range(stages)),
        kernel_sizes=_triples(settings["conv_kernel_sizes"], stages, dimensions),
        strides=_triples(settings["pool_op_kernel_sizes"], stages, dimensions),
        encoder_blocks=tuple(blocks),
        decoder_convs=_per_stage(settings["n_conv_per_stage_decoder"], stages - 1),
        conv_bias=True,
        norm_eps=1e-5,
        negative_slope=0.01,
        dimensions=dimensions,
    )


def _refuse_unsupported(plans: Json, settings: Json) -> None:
    expected = {
        "image_reader_writer": (plans, READERS),
        "label_manager": (plans, ("LabelManager",)),
        "preprocessor_name": (settings, ("DefaultPreprocessor",)),
    }
    for key, (source, supported) in expected.items():
        found = source.get(key, supported[0])
        if found not in supported:
            raise TrainingError(f"{key} {found} is not supported, only {', '.join(supported)}")
    if len(settings["patch_size"]) not in (2, 3):
        raise TrainingError(
            f"patch_size {settings['patch_size']!r:.80} is not of two or three dimensions"
        )


def _previous_stage(settings: Json, foreground: tuple[int, ...]) -> PreviousStage | None:
    """What a cascade takes of the stage before it, whose folder is named as that is; else None."""
    stage = settings.get("previous_stage")
    if not stage:
        return None
    name, kwargs = settings["resampling_fn_seg"], dict(settings["resampling_fn_seg_kwargs"])
    force = kwargs.pop("force_separate_z", False)
    supported = {"is_seg": True, "order": 1, "order_z": 0}
    if _RESAMPLERS.get(name) != "default" or kwargs != supported:
        raise TrainingError(
            f"resampling_fn_seg {name} with {kwargs} is not supported in a cascade, only "
            f"{next(iter(_RESAMPLERS))} with {supported}"
        )
    return PreviousStage(stage, foreground, force)


def _foreground(dataset: Json) -> tuple[int, ...]:
    """All labels but background and what is ignored, in order; the labels of all regions."""
    labels = [v for name, v in dataset["labels"].items() if name != "ignore"]
    values = {int(v) for label in labels for v in (label if isinstance(label, list) else [label])}
    return tuple(sorted(values - {0}))


def _normalization(plans: Json, settings: Json, channels: int) -> tuple[Normalization, ...]:
    properties = (
        plans.get("foreground_intensity_properties_per_channel")
        or plans["foreground_intensity_properties_by_modality"]
    )
    schemes, masks = settings["normalization_schemes"], settings["use_mask_for_norm"]
    if not len(schemes) == len(masks) == channels:
        raise TrainingError(f"{len(schemes)} normalization schemes for {channels} channels")
    result = []
    for channel, (scheme, mask) in enumerate(zip(schemes, masks, strict=True)):
        if scheme not in NORMALIZATIONS:
            raise TrainingError(
                f"normalization {scheme} is not supported, only {', '.join(NORMALIZATIONS)}"
            )
        given = properties[str(channel)] if scheme == "CTNormalization" else {}
        keys = ("mean", "std", "percentile_00_5", "percentile_99_5")
        result.append(Normalization(scheme, bool(mask), **{k: given[k] for k in keys if given}))
    return tuple(result)


def _resampling(settings: Json, key: str) -> Resampling:
    name, kwargs = settings[key], dict(settings[f"{key}_kwargs"])
    if name not in _RESAMPLERS:
        raise TrainingError(f"{key} {name} is not supported, only {', '.join(_RESAMPLERS)}")
    function = _RESAMPLERS[name]
    # defaults of nnU-Net's functions, where the plans leave an argument out
    force = kwargs.pop("force_separate_z", False if function == "default" else None)
    order = kwargs.pop("order", 3) if function == "default" else 1
    defaults: Json = {"is_seg": False, "separate_z_anisotropy_threshold": 3}
    if function == "default":
        defaults |= {"order_z": 0}
    else:
        defaults |= {"mode": "linear", "aniso_axis_mode": "nearest-exact"}
        for without_effect in ("device", "num_threads", "memefficient_seg_resampling"):
            kwargs.pop(without_effect, None)
    for argument, value in kwargs.items():
        if argument not in defaults or value != defaults[argument]:
            raise TrainingError(
                f"{key}_kwargs: {argument}={value} is not supported with {name}, only {defaults}"
            )
    orders = DATA_ORDERS if key == "resampling_fn_data" else LOGITS_ORDERS
    if order not in orders:
        supported = " and ".join(str(o) for o in orders)
        raise TrainingError(f"{key}_kwargs: order={order} is not supported, only {supported}")
    return Resampling(function, order, force)


def _per_stage(value: Any, stages: int) -> tuple[Any, ...]:
    if stages > MOST_STAGES:
        given = reprlib.repr(stages)
        raise TrainingError(f"{given} stages are not supported, {MOST_STAGES} at most")
    entries = [value] * stages if isinstance(value, int) else value
    if len(entries) != stages:
        given = reprlib.repr(value)
        raise TrainingError(f"expected one entry for each of {stages} stages, found {given}")
    return tuple(entries)


def _triples(value: Any, stages: int, dimensions: int) -> tuple[tuple[int, int, int], ...]:
    return tuple(
        _triple([e] * dimensions if isinstance(e, int) else e, dimensions)
        for e in _per_stage(value, stages)
    )


def _triple(value: Any, dimensions: int = 3, across: int | None = 1) -> Any:
    """Three values, of a 2D configuration two and before them that ``across`` sections."""
    if len(value) != dimensions:
        raise TrainingError(f"expected {_COUNTS[dimensions == 2]} values, found {value}")
    return (across, *value) if dimensions == 2 else tuple(value)
