"""Train the small stand-in lesion model with nnU-Net's own trainer on a CPU.

The model exists so that the container has weights to run until real ones are mounted: it must
give plausible, non-empty masks, nothing more. It needs an environment with nnunetv2 (2.8.1 was
used), which is none of the container's:

    python training/standin.py SOURCE OUTPUT --lesion-free TOTALSEG --train-only LIDC_0314

SOURCE has imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz (1 = lesion), one case per patient.
OUTPUT gets nnUNet_raw, nnUNet_preprocessed, nnUNet_results and training.json. A case named
under --lesion-free needs no label: it gets an empty one and is never held out. The same seed,
threads and versions give the same weights: sampling and augmentation run in this process.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

DATASET = "Dataset903_Standin"
CONFIGURATION = "3d_standin"
SUFFIX = ".nii.gz"
SPACING = (3.0, 2.0, 2.0)  # mm; z, y, x, as everywhere in nnU-Net's plans
PATCH = (32, 64, 64)
BATCH = 2
FEATURES = (16, 32, 64, 128)
MARGIN_MM = (5.0, 50.0)
BACKGROUND_MM = 130.0  # side of a lesion-free box, a little more than a patch
# The published fingerprint of the whole-body model that this one stands in for (HU).
INTENSITIES = {
    "percentile_00_5": -900.0,
    "percentile_99_5": 619.0,
    "mean": -52.232,
    "std": 268.799,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="raw cases in nnU-Net's layout")
    parser.add_argument("output", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--lesion-free", nargs="*", default=[], metavar="CASE")
    parser.add_argument("--train-only", nargs="*", default=[], metavar="CASE")
    parser.add_argument("--repeat", type=int, default=6, help="draws of each of those two kinds")
    parser.add_argument("--hold-out", type=int, default=6, help="cases for validation")
    parser.add_argument("--crops", type=int, default=2, help="re-drawn crops per training case")
    parser.add_argument(
        "--background", type=int, default=8, help="lesion-free boxes per train-only"
    )
    parser.add_argument("--seed", type=int, default=20240611)
    parser.add_argument("--epochs", type=int, default=56)
    parser.add_argument("--iterations", type=int, default=25, help="per epoch")
    parser.add_argument("--validation-iterations", type=int, default=2, help="per epoch")
    parser.add_argument("--learning-rate", type=float, default=1e-2, help="at the first epoch")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def nnunet(module: str) -> Any:
    """Import a module of nnunetv2, which reads its folders from the environment as it loads."""
    return importlib.import_module(f"nnunetv2.{module}")


def draw_crop(label: sitk.Image, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Draw a box (x, y, z: start, size) around the lesions, each side's margin drawn anew.

    The cases at hand are crops with the lesion in the middle; without this the network could
    learn the position in place of the lesion.
    """
    voxels = np.argwhere(sitk.GetArrayViewFromImage(label) > 0)[:, ::-1]
    spacing = np.array(label.GetSpacing())
    low = voxels.min(axis=0) - np.round(rng.uniform(*MARGIN_MM, 3) / spacing)
    high = voxels.max(axis=0) + 1 + np.round(rng.uniform(*MARGIN_MM, 3) / spacing)
    low, high = np.maximum(low, 0), np.minimum(high, label.GetSize())
    return [int(v) for v in low], [int(v) for v in high - low]


def draw_background(label: sitk.Image, rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Draw a box (x, y, z: start, size) without any lesion, anywhere: air, lung, organs.

    A network that has never seen a patch without a lesion paints one into it.
    """
    lesion = sitk.GetArrayViewFromImage(label) > 0
    extent = np.array(label.GetSize())
    size = np.minimum(np.round(BACKGROUND_MM / np.array(label.GetSpacing())).astype(int), extent)
    for _ in range(1000):
        x, y, z = start = rng.integers(0, extent - size + 1)
        if not lesion[z : z + size[2], y : y + size[1], x : x + size[0]].any():
            return [int(v) for v in start], [int(v) for v in size]
    raise ValueError("no box without a lesion found")


def split(cases: list[str], fixed: set[str], count: int, seed: int) -> list[str]:
    """Hold out `count` cases, by patient: none of their voxels is ever trained on."""
    candidates = sorted(set(cases) - fixed)
    if count >= len(candidates):
        raise ValueError(f"cannot hold out {count} of {len(candidates)} cases")
    return sorted(random.Random(seed).sample(candidates, count))


def write_raw(args: argparse.Namespace, raw: Path) -> dict[str, list[str]]:
    """Write the raw dataset with its re-drawn crops; return fold 0 of the split."""
    images, labels = raw / "imagesTr", raw / "labelsTr"
    images.mkdir(parents=True)
    labels.mkdir()
    ending = f"_0000{SUFFIX}"
    cases = sorted(p.name.removesuffix(ending) for p in args.source.glob(f"imagesTr/*{ending}"))
    fixed = {*args.lesion_free, *args.train_only}
    if missing := fixed - set(cases):
        raise FileNotFoundError(f"no image of {sorted(missing)}")
    held_out = split(cases, fixed, args.hold_out, args.seed)
    rng = np.random.default_rng(args.seed)
    train: list[str] = []
    for case in cases:
        image_path = args.source / "imagesTr" / f"{case}{ending}"
        shutil.copyfile(image_path, images / image_path.name)
        image = sitk.ReadImage(str(image_path))
        if case in args.lesion_free:
            label = sitk.Image(image.GetSize(), sitk.sitkUInt8)
            label.CopyInformation(image)
        else:
            label = sitk.ReadImage(str(args.source / "labelsTr" / f"{case}{SUFFIX}"))
        sitk.WriteImage(label, str(labels / f"{case}{SUFFIX}"))
        if case in held_out:
            continue
        boxes: dict[str, tuple[list[int], list[int]]] = {}
        if case not in args.lesion_free:
            boxes |= {f"{case}_crop{n}": draw_crop(label, rng) for n in range(args.crops)}
        if case in args.train_only:
            more = range(args.background)
            boxes |= {f"{case}_background{n}": draw_background(label, rng) for n in more}
        for name, (start, size) in boxes.items():
            for source, path in (
                (image, images / f"{name}{ending}"),
                (label, labels / f"{name}{SUFFIX}"),
            ):
                sitk.WriteImage(sitk.RegionOfInterest(source, size, start), str(path))
        # nnU-Net draws cases evenly from this list: a name that stands in it twice counts twice.
        train += [case, *boxes] * (args.repeat if case in fixed else 1)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(list(labels.iterdir())),
        "file_ending": SUFFIX,
    }
    (raw / "dataset.json").write_text(json.dumps(description, indent=2))
    return {"train": train, "val": held_out}


def standin_configuration(plans: dict[str, Any]) -> dict[str, Any]:
    """Describe the small network as a child of the configuration that nnU-Net planned."""
    stages = len(FEATURES)
    shape = plans["original_median_shape_after_transp"]
    spacing = plans["original_median_spacing_after_transp"]
    return {
        "inherits_from": "3d_fullres",
        "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
        "batch_size": BATCH,
        "batch_dice": True,
        "patch_size": list(PATCH),
        "spacing": list(SPACING),
        "median_image_size_in_voxels": [
            float(round(n * old / new)) for n, old, new in zip(shape, spacing, SPACING, strict=True)
        ],
        "normalization_schemes": ["CTNormalization"],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(FEATURES),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
                "n_conv_per_stage": [2] * stages,
                "n_conv_per_stage_decoder": [2] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }


def plan(preprocessed: Path) -> None:
    """Let nnU-Net take its fingerprint, plan and preprocess, with our configuration put in."""
    api = nnunet("experiment_planning.plan_and_preprocess_api")
    number = int(DATASET[7:10])
    api.extract_fingerprints([number], num_processes=1, check_dataset_integrity=True)
    name: str = api.plan_experiments([number])
    path = preprocessed / f"{name}.json"
    plans: dict[str, Any] = json.loads(path.read_text())
    if plans["transpose_forward"] != [0, 1, 2]:
        raise ValueError(f"the plans transpose the axes: {plans['transpose_forward']}")
    plans["configurations"][CONFIGURATION] = standin_configuration(plans)
    plans["foreground_intensity_properties_per_channel"]["0"].update(INTENSITIES)
    path.write_text(json.dumps(plans, indent=4))
    api.preprocess([number], name, [CONFIGURATION], [1])


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Run the stock trainer on fold 0 with a shorter schedule, to its very end."""
    # No augmentation processes: sampling would depend on timing. (The planner refuses a 0.)
    os.environ.update(nnUNet_n_proc_DA="0")
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(args.threads)
    random.seed(args.seed)
    np.random.seed(args.seed)  # nnU-Net draws from the global generators
    torch.manual_seed(args.seed)
    trainer = nnunet("run.run_training").get_trainer_from_args(
        DATASET, CONFIGURATION, 0, device=torch.device("cpu")
    )
    trainer.num_epochs = args.epochs
    trainer.num_iterations_per_epoch = args.iterations
    trainer.num_val_iterations_per_epoch = args.validation_iterations
    trainer.initial_lr = args.learning_rate
    started = time.monotonic()
    trainer.run_training()
    log = trainer.logger.get_checkpoint()
    return {
        "trained": str(Path(trainer.output_folder_base).relative_to(args.output.resolve())),
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "seconds": round(time.monotonic() - started, 1),
        "losses": [round(float(v), 4) for v in log["train_losses"]],
        "validation_losses": [round(float(v), 4) for v in log["val_losses"]],
    }


def main(arguments: list[str] | None = None) -> int:
    """Prepare, train and write training.json."""
    args = parse(arguments)
    args.output.mkdir(parents=True)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(args.output.resolve() / name)
    os.environ.update(nnUNet_n_proc_DA="1", nnUNet_def_n_proc="1", nnUNet_compile="f")
    fold = write_raw(args, args.output / "nnUNet_raw" / DATASET)
    preprocessed = args.output / "nnUNet_preprocessed" / DATASET
    preprocessed.mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text(json.dumps([fold], indent=2))
    plan(preprocessed)
    options = {k: v for k, v in vars(args).items() if k not in ("source", "output")}
    record = {"options": options, "split": fold, **train(args)}
    (args.output / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    print(f"trained folder: {args.output / record['trained']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
