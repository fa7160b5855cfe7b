"""A recipe as nnU-Net's plans.json: what its preprocessor, its trainer and the export read.

Field by field the form that nnU-Net 2.8.1's own planner writes, with the recipe's numbers in place
of planned ones. One configuration holds what all members of an ensemble share, and each member's
inherits from it; under ``training``, which nnU-Net does not know, stands what its trainer is given.
"""

from __future__ import annotations

from training.files import Json
from training.recipes import OF_A_MEMBER, Recipe, Settings

BASE = "3d_fullres"
DATA = "3d_fullres"  # folder of the preprocessed data: recipes with the same numbers share it
# What the preprocessor reads of a configuration: data made with the same can be trained on.
_OF_PREPROCESSING = (
    "data_identifier",
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
_BLOCKS = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}


def plans(recipe: Recipe, dataset_name: str) -> Json:
    """The plans of a recipe for a dataset of nnU-Net's (its folder's name), of CT alone."""
    shared = recipe.shared
    low, high = shared.clip
    configurations: Json = {BASE: _configuration(shared)}
    for member in recipe.members:
        given = {key: getattr(member.settings, key) for key in OF_A_MEMBER}
        own = {key: given.pop(key) for key in ("batch_size", "batch_dice")} | {"training": given}
        if member.configuration == BASE:
            configurations[BASE] |= own
        else:
            configurations[member.configuration] = {"inherits_from": BASE, **own}
    return {
        "dataset_name": dataset_name,
        "plans_name": recipe.name,
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": shared.mean,
                "std": shared.std,
                "percentile_00_5": low,
                "percentile_99_5": high,
            }
        },
    }


def dataset_json(cases: int) -> Json:
    """nnU-Net's dataset.json for so many cases of CT with lesions."""
    return {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }


def preprocessing(of: Json) -> Json:
    """What plans say of preprocessing; two that agree in it can be trained on the same data."""
    settings = of["configurations"][BASE]
    return {
        **{key: settings[key] for key in _OF_PREPROCESSING},
        "transpose_forward": of["transpose_forward"],
        "intensities": of["foreground_intensity_properties_per_channel"],
    }


def _configuration(s: Settings) -> Json:
    return {
        "data_identifier": DATA,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": s.batch_size,
        "batch_dice": s.batch_dice,
        "patch_size": list(s.patch_zyx),
        "spacing": list(s.spacing_zyx),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **_resampling("data", "default", is_seg=False, order=3),
        **_resampling("seg", "default", is_seg=True, order=1),
        **_resampling("probabilities", s.logits_resampling, is_seg=False, order=1),
        "architecture": _architecture(s),
    }


def _resampling(what: str, how: str, *, is_seg: bool, order: int) -> Json:
    kwargs: Json = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    if how == "torch":  # as nnU-Net's planners with torch's resampling have it
        function = "resample_torch_fornnunet"
        kwargs = {"is_seg": is_seg, "force_separate_z": False, "memefficient_seg_resampling": False}
    return {f"resampling_fn_{what}": function, f"resampling_fn_{what}_kwargs": kwargs}


def _architecture(s: Settings) -> Json:
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{s.network}",
        "arch_kwargs": {
            "n_stages": len(s.features),
            "features_per_stage": list(s.features),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [list(kernel) for kernel in s.kernels],
            "strides": [list(stride) for stride in s.strides],
            _BLOCKS[s.network]: list(s.encoder_blocks),
            "n_conv_per_stage_decoder": list(s.decoder_convs),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
