"""nnU-Net's fingerprint and preprocessor on a prepared dataset, in nnU-Net's own environment.

``python -m training.preprocessor DATASET PLANS PROCESSES``, started by `training.nnunet.run`.
nnU-Net's own command starts from nothing when it is started again; this one goes on: a case is
worked on aside, and its properties, which are moved to their place last, say that it is complete.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from training.nnunet import end_with_parent

BASE = "3d_fullres"
SAMPLES = 1e6  # foreground voxels of the fingerprint, which only informs: the recipe has the plans
ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")


def preprocess(dataset, plans, processes):
    """Take the fingerprint and preprocess what is not yet there."""
    extractor = DatasetFingerprintExtractor(dataset, processes)
    extractor.num_foreground_voxels_for_intensitystats = SAMPLES
    extractor.show_progress_bar = False
    extractor.run(overwrite_existing=False)
    raw, folder = Path(nnUNet_raw, dataset), Path(nnUNet_preprocessed, dataset)
    plans_file = folder / f"{plans}.json"
    configuration = PlansManager(str(plans_file)).get_configuration(BASE)
    done = folder / configuration.data_identifier
    aside = folder / f".{configuration.data_identifier}.unfinished"
    for needed in (done, aside):
        needed.mkdir(exist_ok=True)
    jobs = [
        (name, files["images"], files["label"], str(plans_file), str(done), str(aside))
        for name, files in get_filenames_of_train_images_and_targets(str(raw)).items()
        if not (done / f"{name}.pkl").exists()
    ]
    if processes == 1 or len(jobs) < 2:
        report(map(one_case, jobs), len(jobs))
    else:
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            report(pool.map(one_case, jobs), len(jobs))
    for left in aside.iterdir():
        left.unlink()
    aside.rmdir()


def one_case(job):
    """Preprocess one case and move it to its place; returns its name."""
    name, images, label, plans_file, done, aside = job
    plans = PlansManager(plans_file)
    configuration = plans.get_configuration(BASE)
    preprocessor = configuration.preprocessor_class(verbose=False)
    for ending in ENDINGS:
        Path(aside, name + ending).unlink(missing_ok=True)
    preprocessor.run_case_save(
        str(Path(aside, name)),
        images,
        label,
        plans,
        configuration,
        load_json(str(Path(plans_file).with_name("dataset.json"))),
    )
    for ending in ENDINGS:
        Path(aside, name + ending).replace(Path(done, name + ending))
    return name


def report(names, count):
    """Say of each case that it is done."""
    for number, name in enumerate(names, 1):
        print(f"preprocessed {name} ({number} of {count})", flush=True)


if __name__ == "__main__":
    end_with_parent()
    preprocess(sys.argv[1], sys.argv[2], int(sys.argv[3]))
