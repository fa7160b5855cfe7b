"""What a model.json may say beyond the types of its fields, each rule with its words.

app/model.py reads the file and says which of these it breaks.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.model import ModelConfig

READERS = ("SimpleITKIO", "NibabelIO", "NibabelIOWithReorient")
NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
NORMALIZATIONS = (
    "CTNormalization",
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
RESAMPLERS = ("default", "torch")
DATA_ORDERS = (1, 3)  # of the spline
LOGITS_ORDERS = (1,)  # only of a linear mix of neighbours can most of the scan be left out
DTYPES = ("float32", "float16")
MOST_STAGES, MOST_FEATURES, MOST_BLOCKS, MOST_KERNEL = 16, 2**14, 64, 64
MOST_PATCH_VOXELS = 2**26
LEAST_SPACING, MOST_SPACING = 0.001, 1000.0  # mm


def broken_size_rule(config: ModelConfig) -> str | None:
    """The first rule on sizes that a model breaks, in words; None if it keeps them all."""
    return _first_broken(_size_rules(config))


def broken_rule(config: ModelConfig) -> str | None:
    """The first other rule that a model breaks, whose sizes are as they should be."""
    return _first_broken(_rules(config))


def _first_broken(rules: list[tuple[bool, str]]) -> str | None:
    return next((rule for holds, rule in rules if not holds), None)


def _size_rules(config: ModelConfig) -> list[tuple[bool, str]]:
    """What keeps time and memory bounded, far above what is trained."""
    network, stages = config.network, len(config.network.features)
    per_stage = (network.kernel_sizes, network.strides, network.encoder_blocks)
    sizes = {
        "network.features": (network.features, MOST_FEATURES),
        "network.kernel_sizes": (sum(network.kernel_sizes, ()), MOST_KERNEL),
        "network.strides": (sum(network.strides, ()), MOST_KERNEL),
        "network.encoder_blocks": (network.encoder_blocks, MOST_BLOCKS),
        "network.decoder_convs": (network.decoder_convs, MOST_BLOCKS),
        "patch_size": (config.patch_size, MOST_PATCH_VOXELS),
    }
    return [
        (1 <= stages <= MOST_STAGES, f"network.features has 1 to {MOST_STAGES} stages"),
        (
            all(len(x) == stages for x in per_stage),
            "kernel_sizes, strides, encoder_blocks have one entry per stage",
        ),
        (len(network.decoder_convs) == stages - 1, "decoder_convs has one entry less than stages"),
        *(
            (all(1 <= value <= most for value in values), f"{what} are from 1 to {most}")
            for what, (values, most) in sizes.items()
        ),
        (
            math.prod(config.patch_size) <= MOST_PATCH_VOXELS,
            f"patch_size is {MOST_PATCH_VOXELS} voxels at most",
        ),
        (
            all(step is None or LEAST_SPACING <= step <= MOST_SPACING for step in config.spacing),
            f"spacing is from {LEAST_SPACING} to {MOST_SPACING} mm",
        ),
    ]


def _rules(config: ModelConfig) -> list[tuple[bool, str]]:
    network, channels, previous = config.network, len(config.channels), config.previous_stage
    folders = [*config.ensemble, *([previous.folder] if previous else [])]
    rules: list[tuple[bool, str]] = [
        (config.reader in READERS, f"reader is one of {READERS}"),
        (network.name in NETWORKS, f"network.name is one of {NETWORKS}"),
        (config.dtype in DTYPES, f"dtype is one of {DTYPES}"),
        (
            (network.dimensions == 2) == (config.spacing[0] is None),
            "spacing has no value across sections, null, for a network of two dimensions alone",
        ),
        (
            network.dimensions == 3
            or {config.patch_size[0], *(k[0] for k in network.kernel_sizes + network.strides)}
            == {1},
            "network.dimensions is 3, or 2 where patch_size, kernel_sizes, strides begin with 1",
        ),
        (sorted(config.transpose) == [0, 1, 2], "transpose is a permutation of 0, 1, 2"),
        (len(config.normalization) == channels, "normalization has one entry per channel"),
        (
            network.input_channels == channels + (len(previous.labels) if previous else 0),
            "network.input_channels equals the channels, and the labels of a previous stage",
        ),
        (
            previous is None or len(previous.labels) == len({*previous.labels} - {0}),
            "previous_stage.labels are different ones, without background",
        ),
        (
            all(Path(f).name == f and f not in ("", "..") for f in folders)
            and len(set(folders)) == len(folders),
            "ensemble and previous_stage name folders, each once, in the model's own folder",
        ),
        (network.heads == len(config.labels), "labels has one entry per head"),
        (
            config.region_values is None or len(config.region_values) == network.heads,
            "region_values has one entry per head",
        ),
        (set(config.mirror_axes) <= {0, 1, 2}, "mirror_axes are among 0, 1, 2"),
        (
            all(
                p % math.prod(s) == 0
                for p, s in zip(config.patch_size, zip(*network.strides, strict=True), strict=True)
            ),
            "patch_size is divisible by the product of the strides",
        ),
        (
            network.heads >= (2 if config.region_values is None else 1),
            "there are two classes or one region at least",
        ),
        (len(config.members) > 0, "members is not empty"),
        (
            all(Path(m.file).name == m.file for m in config.members),
            "members name files in the model's own folder",
        ),
    ]
    for what, resampling, orders in (
        ("resample_data", config.resample_data, DATA_ORDERS),
        ("resample_logits", config.resample_logits, LOGITS_ORDERS),
    ):
        rules += [
            (resampling.function in RESAMPLERS, f"{what}.function is one of {RESAMPLERS}"),
            (resampling.order in orders, f"{what}.order is one of {orders}"),
        ]
    for norm in config.normalization:
        given = (norm.mean, norm.std, norm.percentile_00_5, norm.percentile_99_5)
        rules += [
            (norm.scheme in NORMALIZATIONS, f"a normalization scheme is one of {NORMALIZATIONS}"),
            (
                norm.scheme != "CTNormalization" or None not in given,
                "CTNormalization has mean, std, percentile_00_5, percentile_99_5",
            ),
        ]
    if config.lesion_filter is not None:
        kept = config.lesion_filter
        rules += [
            (
                config.region_values is None and network.heads == 2,
                "lesion_filter is for two classes",
            ),
            (kept.min_volume_ml >= 0, "lesion_filter.min_volume_ml is 0 or more"),
            (0 <= kept.min_probability < 1, "lesion_filter.min_probability is 0 or more, below 1"),
        ]
    if config.postprocessing is not None:
        groups = config.postprocessing.keep_largest
        rules += [
            (all(min(group, default=0) > 0 for group in groups), "keep_largest names labels from 1")
        ]
    return rules
