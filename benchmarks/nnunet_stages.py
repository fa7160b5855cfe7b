"""One case through nnU-Net's own functions with a clock around each stage.

Runs in nnU-Net's environment as a cold process:
``python nnunet_stages.py TRAINED FILE OUTPUT DEVICE``.
Prints one JSON object: seconds since process start and per stage.
"""

import json
import os
import sys
import time
from pathlib import Path

stages = {}


def since_process_start():
    """Seconds since the kernel started this process."""
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def timed(owner, name, stage):
    """Add the time that ``owner.name`` takes to ``stage``."""
    original = getattr(owner, name)

    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        result = original(*args, **kwargs)
        stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - start
        return result

    setattr(owner, name, wrapper)


def main():
    """Segment one file and print the times."""
    import torch
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference import export_prediction, predict_from_raw_data
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    trained, file, output, device = sys.argv[1:]
    predictor = predict_from_raw_data.nnUNetPredictor(
        use_mirroring=False, device=torch.device(device), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(trained, ("0",))
    stages["ready"] = since_process_start()
    timed(SimpleITKIO, "read_images", "read")
    timed(SimpleITKIO, "write_seg", "write")
    timed(DefaultPreprocessor, "run_case_npy", "preprocess")
    timed(predictor, "predict_logits_from_preprocessed_data", "network")
    name = "convert_predicted_logits_to_segmentation_with_correct_shape"
    timed(export_prediction, name, "restore")
    sys.stdout.flush()
    predictor.predict_from_files_sequential([[file]], [output])
    print("STAGES " + json.dumps(stages))


if __name__ == "__main__":
    main()
