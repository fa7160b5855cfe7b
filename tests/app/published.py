"""The networks of the two FLARE 2024 papers, as this app's config describes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.model import ModelConfig, Network
from tests.app.small_model import CONFIG
from tests.nnunet_models import DKFZ_102M, HUANG_5_6M, Json


def _network(name: str, arguments: Json, blocks: str) -> Network:
    def tuples(value: Any) -> Any:
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    given = {key: tuples(value) for key, value in arguments.items()}
    return Network(
        name=name,
        input_channels=1,
        heads=2,
        features=given["features_per_stage"],
        kernel_sizes=given["kernel_sizes"],
        strides=given["strides"],
        encoder_blocks=given[blocks],
        decoder_convs=given["n_conv_per_stage_decoder"],
        conv_bias=True,
        norm_eps=1e-5,
        negative_slope=0.01,
    )


HUANG: ModelConfig = replace(
    CONFIG,
    name="5.6M",
    spacing=(3.0, 2.0, 2.0),
    patch_size=(96, 128, 128),
    network=_network("PlainConvUNet", HUANG_5_6M, "n_conv_per_stage"),
)
DKFZ: ModelConfig = replace(
    CONFIG,
    name="102M",
    spacing=(1.0, 0.8, 0.8),
    patch_size=(96, 160, 160),
    network=_network("ResidualEncoderUNet", DKFZ_102M, "n_blocks_per_stage"),
)
PUBLISHED = {"5.6M": HUANG, "102M": DKFZ}
