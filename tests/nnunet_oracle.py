"""Runs nnU-Net itself, in the environment that has it: the oracle of the parity tests.

``python nnunet_oracle.py JOBS.json``: a list of jobs, each of which

- ``build``: writes a trained folder with random weights from plans (``plans``, ``dataset``,
  ``configuration``, ``folds``, ``seed``, ``mirror_axes``) to ``folder``; or
- ``predict``: lets nnU-Net's predictor segment ``files`` (one per channel) with ``folders`` (one
  ensemble), a cascade's after the masks in ``previous``, and writes the mask to ``mask`` and, when
  asked, the logits to ``logits`` and beside the mask the ``probabilities``; or
- ``postprocess``: writes a postprocessing.pkl of ``groups`` (each a label, or a list of labels, or
  {"region": labels}) to ``pkl`` and does what it says to each of ``masks``, a list of (in, out); or
- ``ensemble``: lets nnU-Net average the probabilities beside ``masks`` and writes the mask to
  ``mask``; plans and dataset are those of ``folder``.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, save_pickle
from dynamic_network_architectures import architectures
from dynamic_network_architectures.architectures import unet
from nnunetv2.ensembling.ensemble import merge_files
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.postprocessing.remove_connected_components import (
    load_postprocess_save,
    remove_all_but_largest_component_from_segmentation,
)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

# Whatever the trainer was called, it built the network of the plans: it need not be installed.
predict_from_raw_data.recursive_find_trainer_class_by_name = lambda name: nnUNetTrainer

# Old plans name a module that has moved. nnU-Net would look for the class in all modules of the
# package, some of which need a torchvision that fits torch to the patch.
sys.modules[f"{architectures.__name__}.residual_unet"] = architectures.residual_unet = unet


def build(job):
    """A trained folder as nnU-Net's trainer leaves it, with seeded random weights."""
    folder = Path(job["folder"])
    plans, dataset = PlansManager(json.loads(json.dumps(job["plans"]))), job["dataset"]
    configuration = plans.get_configuration(job["configuration"])
    channels = determine_num_input_channels(plans, configuration, dataset)
    heads = plans.get_label_manager(dataset).num_segmentation_heads
    for number, fold in enumerate(job["folds"]):
        torch.manual_seed(job["seed"] + number)
        network = nnUNetTrainer.build_network_architecture(
            plans, configuration, channels, heads, enable_deep_supervision=True
        )
        for name, parameter in network.named_parameters():
            if "norm" in name or name.endswith("bias"):
                torch.nn.init.normal_(parameter, float(name.endswith("norm.weight")), 0.3)
        fold_folder = folder / f"fold_{fold}"
        fold_folder.mkdir(parents=True)
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5)], "ema_fg_dice": [np.float32(0.5)]},
            "_best_ema": np.float32(0.5),
            "current_epoch": 1,
            "init_args": {
                "plans": job["plans"],
                "configuration": job["configuration"],
                "fold": fold,
                "dataset_json": dataset,
                "device": torch.device("cpu"),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": job["mirror_axes"],
        }
        torch.save(checkpoint, fold_folder / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(job["plans"]))
    (folder / "dataset.json").write_text(json.dumps(dataset))


def predict(job):
    """nnU-Net's own reading, preprocessing, sliding window, export and writing."""
    predictor = nnUNetPredictor(
        tile_step_size=job["step_size"],
        use_mirroring=job["tta"],
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    parameters = []
    for folder in reversed(job["folders"]):  # the first one's settings are the ones that stay
        folds = sorted(f.name[5:] for f in Path(folder).glob("fold_*"))
        predictor.initialize_from_trained_model_folder(folder, folds)
        parameters = predictor.list_of_parameters + parameters
    predictor.list_of_parameters = parameters
    if job.get("logits"):
        preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
        data, _, _ = preprocessor.run_case(
            job["files"],
            None,
            predictor.plans_manager,
            predictor.configuration_manager,
            predictor.dataset_json,
        )
        logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
        np.savez(job["logits"], data=data, logits=logits.numpy())
    ending = predictor.dataset_json["file_ending"]
    predictor.predict_from_files_sequential(
        [job["files"]],
        [job["mask"].removesuffix(ending)],
        job.get("probabilities", False),
        folder_with_segs_from_prev_stage=job.get("previous"),
    )


def postprocess(job):
    """nnU-Net's own postprocessing, from the file as nnU-Net writes and reads it."""

    def labels(group):
        if isinstance(group, dict):
            return tuple(group["region"])
        return [np.int64(v) for v in group] if isinstance(group, list) else np.int64(group)

    functions = [remove_all_but_largest_component_from_segmentation] * len(job["groups"])
    arguments = [{"labels_or_regions": labels(group)} for group in job["groups"]]
    save_pickle((functions, arguments), job["pkl"])
    functions, arguments = load_pickle(job["pkl"])
    for source, target in job["masks"]:
        load_postprocess_save(source, target, SimpleITKIO(), functions, arguments)


def ensemble(job):
    """What nnUNetv2_ensemble does with each case."""
    folder = Path(job["folder"])
    plans = PlansManager(json.loads((folder / "plans.json").read_text()))
    dataset = json.loads((folder / "dataset.json").read_text())
    ending = dataset["file_ending"]
    merge_files(
        [mask.removesuffix(ending) + ".npz" for mask in job["masks"]],
        job["mask"].removesuffix(ending),
        ending,
        plans.image_reader_writer_class(),
        plans.get_label_manager(dataset),
        job.get("probabilities", False),
    )


if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text()):
        does = {
            "build": build,
            "predict": predict,
            "postprocess": postprocess,
            "ensemble": ensemble,
        }
        does[job["do"]](job)
