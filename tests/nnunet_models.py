"""Plans, datasets and scans of many shapes for the parity tests, and the way to nnU-Net itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
ORACLE_PYTHON = ROOT / ".venv-nnunet" / "bin" / "python"
Json = dict[str, Any]

CT_PROPERTIES = {
    "max": 600.0,
    "mean": 34.01754,
    "median": 36.0,
    "min": -900.0,
    "percentile_00_5": -130.0,
    "percentile_99_5": 161.0,
    "std": 50.2138,
}


def run_oracle(jobs: list[Json], folder: Path) -> None:
    """Let nnU-Net do ``jobs`` (see nnunet_oracle.py) in one process; fails with its output."""
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    done = subprocess.run(
        [ORACLE_PYTHON, ROOT / "tests" / "nnunet_oracle.py", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def dataset(labels: Json | None = None, channels: int = 1, **more: Any) -> Json:
    """A dataset.json; two classes by default."""
    return {
        "channel_names": {str(c): f"channel {c}" for c in range(channels)},
        "labels": labels or {"background": 0, "lesion": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
        **more,
    }


def plans(
    spacing: tuple[float, float, float] = (3.0, 1.5, 1.5),
    patch: tuple[int, int, int] = (16, 32, 32),
    schemes: tuple[str, ...] = ("CTNormalization",),
    use_mask: bool = False,
    transpose: tuple[int, int, int] = (0, 1, 2),
    data: str = "resample_data_or_seg_to_shape",
    logits: str = "resample_data_or_seg_to_shape",
    data_order: int = 3,
    force_separate_z: bool | None = None,
    residual: bool = False,
    legacy: bool = False,
    architecture: Json | None = None,
    name: str = "3d_fullres",
) -> Json:
    """A plans.json with a small network of three stages; ``name`` inherits from ``base``.

    ``architecture`` replaces arguments of the network.
    """
    settings: Json = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [40.0, 60.0, 60.0],
        "spacing": list(spacing),
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [use_mask] * len(schemes),
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0},
        "batch_dice": False,
    }
    for key, function, order in (("data", data, data_order), ("probabilities", logits, 1)):
        kwargs: Json = {"is_seg": False, "force_separate_z": force_separate_z}
        if function == "resample_data_or_seg_to_shape":
            kwargs |= {"order": order, "order_z": 0}
        settings |= {
            f"resampling_fn_{key}": function,
            f"resampling_fn_{key}_kwargs": kwargs,
        }
    settings |= _legacy_network(residual) if legacy else {"architecture": _network(residual)}
    if architecture:
        settings["architecture"]["arch_kwargs"] |= architecture
    backward = [int(i) for i in np.argsort(transpose)]
    properties = {str(c): CT_PROPERTIES for c in range(len(schemes))}
    return {
        "dataset_name": "Dataset900_Parity",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing),
        "original_median_shape_after_transp": [40, 60, 60],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": backward,
        "configurations": {
            "base": settings,
            name: {"inherits_from": "base", "batch_size": 4},
        },
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": properties,
    }


def _network(residual: bool) -> Json:
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    blocks = {"n_blocks_per_stage": [1, 2, 2]} if residual else {"n_conv_per_stage": [2, 2, 2]}
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [6, 12, 24],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
            "n_conv_per_stage_decoder": [1, 2],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **blocks,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _legacy_network(residual: bool) -> Json:
    return {
        "UNet_class_name": "ResidualEncoderUNet" if residual else "PlainConvUNet",
        "UNet_base_num_features": 6,
        "unet_max_num_features": 16,
        "n_conv_per_stage_encoder": [1, 2, 2] if residual else [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    }


def flat(content: Json, features: list[int] | None = None) -> Json:
    """The plans as those of a 2D configuration: what is said of the first axis goes."""
    settings = content["configurations"]["base"]
    for key in ("patch_size", "spacing"):
        settings[key] = settings[key][1:]
    if "architecture" in settings:
        kwargs = settings["architecture"]["arch_kwargs"]
        for key in ("kernel_sizes", "strides"):
            kwargs[key] = [entry[1:] for entry in kwargs[key]]
        kwargs["conv_op"] = "torch.nn.modules.conv.Conv2d"
        kwargs["norm_op"] = "torch.nn.modules.instancenorm.InstanceNorm2d"
        kwargs["features_per_stage"] = features or kwargs["features_per_stage"]
    else:
        for key in ("conv_kernel_sizes", "pool_op_kernel_sizes"):
            settings[key] = [entry[1:] for entry in settings[key]]
    return content


def smooth_noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Something like tissue: smooth random structure of about -300 to 300, plus noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 200, [n // 6 + 2 for n in shape])
    fine = np.kron(coarse, np.ones((6, 6, 6)))[tuple(slice(3, 3 + n) for n in shape)]
    values: NDArray[np.float32] = (fine + rng.normal(0, 20, shape)).astype(np.float32)
    return values


def write_scan(
    file: Path, voxels: NDArray[Any], spacing_zyx: tuple[float, float, float], dtype: Any = np.int16
) -> Path:
    """A scan with an axis-aligned, flipped direction, as CT often has."""
    image = sitk.GetImageFromArray(voxels.astype(dtype))
    image.SetSpacing(spacing_zyx[::-1])
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((12.5, -30.25, 100.0))
    sitk.WriteImage(image, file)
    return file


def crop_scan(source: Path, file: Path, size_xyz: tuple[int, int, int]) -> Path:
    """The centre of a real scan, with its own voxel type, spacing and direction."""
    image = sitk.ReadImage(source)
    size = [min(s, n) for s, n in zip(size_xyz, image.GetSize(), strict=True)]
    start = [(n - s) // 2 for s, n in zip(size, image.GetSize(), strict=True)]
    sitk.WriteImage(sitk.RegionOfInterest(image, size, start), file)
    return file
