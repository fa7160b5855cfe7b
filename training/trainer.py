"""nnU-Net's trainer with a recipe's schedule, in nnU-Net's own environment.

``python -m training.trainer PLANS CONFIGURATION FOLD``, started by `training.nnunet.run`. The
schedule is in the plans, under ``training`` (see `training.planning`).
"""

import argparse
import json
import os
import random
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

from training.nnunet import end_with_parent
from volumes.files import replacing, write_whole

# nnU-Net's own order (its option --c): finished, as far as it came, or at its best.
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")


class nnUNetTrainer(stock.nnUNetTrainer):
    """The stock trainer with other numbers.

    It keeps the stock trainer's name, which nnU-Net writes into folder and checkpoint: the network
    and inference are the same, so that nnU-Net's own commands can use what it has trained.
    """

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):  # noqa: B008
        super().__init__(plans, configuration, fold, dataset_json, device)
        given = self.configuration_manager.configuration["training"]
        self.num_epochs = given["epochs"]
        self.num_iterations_per_epoch = given["iterations"]
        self.num_val_iterations_per_epoch = given["validation_iterations"]
        self.initial_lr = given["initial_lr"]
        self.weight_decay = given["weight_decay"]
        self.oversample_foreground_percent = given["foreground_oversampling"]
        self.save_every = given["checkpoint_every"]
        self.momentum = given["momentum"]
        self.seed = given["seed"]

    def train_step(self, batch):
        """The stock step, on a CPU in bfloat16 where it has it, as the stock one is in float16."""
        with self.in_bfloat16():
            return super().train_step(batch)

    def validation_step(self, batch):
        """See `train_step`."""
        with self.in_bfloat16():
            return super().validation_step(batch)

    @property
    def arithmetic(self):
        """What the network computes in while it is trained."""
        if self.device.type == "cuda":
            return "float16"
        return "bfloat16" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32"

    @contextmanager
    def in_bfloat16(self):
        """Let the network, not the loss, compute in bfloat16 on a CPU that multiplies it."""
        if self.arithmetic != "bfloat16":
            yield
            return
        whole = self.network.forward

        def forward(x):
            with torch.autocast("cpu", torch.bfloat16):
                outputs = whole(x)
            return [output.float() for output in outputs]

        self.network.forward = forward
        try:
            yield
        finally:
            del self.network.forward

    def configure_optimizers(self):
        """The stock optimizer with the recipe's momentum."""
        optimizer, scheduler = super().configure_optimizers()
        for group in optimizer.param_groups:
            group["momentum"] = self.momentum
        return optimizer, scheduler

    def save_checkpoint(self, filename):
        """Write it aside first: a kill must not leave half a checkpoint in place of a whole one."""
        with replacing(Path(filename)) as part:
            super().save_checkpoint(str(part))

    def resume(self):
        """Load the furthest checkpoint there is, and seed what is drawn from here on.

        nnU-Net's checkpoints do not hold the generators' states, so a training that was interrupted
        draws other patches than one that was not.
        """
        self.draw_from(self.seed)
        found = [c for c in CHECKPOINTS if Path(self.output_folder, c).exists()]
        if found:
            self.load_checkpoint(str(Path(self.output_folder, found[0])))
            self.print_to_log_file(f"goes on after epoch {self.current_epoch} with {found[0]}")
            self.draw_from(self.seed + self.current_epoch)

    @staticmethod
    def draw_from(seed):
        """Seed the generators that nnU-Net draws weights, patches and augmentation from."""
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)


def choose_device(name):
    """The device, with nnU-Net's settings for it; ends the program where there is none."""
    if name != "cpu" and torch.cuda.is_available():
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda")
    if name == "cuda":
        sys.exit("error: --device cuda: no usable NVIDIA GPU")
    print("no GPU is used: training on the CPU, which is many times slower", flush=True)
    # Augmentation in this process: the CPU has enough to do, and the same seed draws the same.
    os.environ.update(nnUNet_n_proc_DA="0")
    torch.set_num_threads(os.cpu_count())
    return torch.device("cpu")


def report(trainer, device):
    """What is worth knowing of a finished training."""
    log = trainer.logger.get_checkpoint()
    seconds = np.subtract(log["epoch_end_timestamps"], log["epoch_start_timestamps"])
    return {
        "configuration": trainer.configuration_name,
        "fold": trainer.fold,
        "epochs": trainer.current_epoch,
        "batch_size": trainer.configuration_manager.batch_size,
        "iterations": trainer.num_iterations_per_epoch,
        "initial_lr": trainer.initial_lr,
        "seed": trainer.seed,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
        "seconds_in_epochs": round(float(seconds.sum()), 1),
        "arithmetic": trainer.arithmetic,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "versions": {"nnunetv2": version("nnunetv2"), "torch": torch.__version__},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "losses": [round(float(v), 4) for v in log["train_losses"]],
        "validation_losses": [round(float(v), 4) for v in log["val_losses"]],
        "pseudo_dice": [round(float(v), 4) for v in log["mean_fg_dice"]],
    }


def main():
    """Train one fold of one configuration to its end, from wherever it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plans", type=Path)
    parser.add_argument("configuration")
    parser.add_argument("fold", type=lambda text: text if text == "all" else int(text))
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "cpu"))
    parser.add_argument("--validate", action="store_true", help="nnU-Net's own, mirrored")
    args = parser.parse_args()
    device = choose_device(args.device)
    plans = json.loads(args.plans.read_text())
    dataset = Path(nnUNet_preprocessed, plans["dataset_name"], "dataset.json")
    trainer = nnUNetTrainer(
        plans | {"continue_training": True},
        args.configuration,
        args.fold,
        json.loads(dataset.read_text()),
        device,
    )
    trainer.resume()
    if trainer.current_epoch > trainer.num_epochs:
        sys.exit(
            f"error: {trainer.output_folder}: has {trainer.current_epoch} epochs, more than the "
            f"{trainer.num_epochs} that are asked for; choose another --output"
        )
    final = Path(trainer.output_folder, CHECKPOINTS[0])
    unfinished = trainer.current_epoch < trainer.num_epochs or not final.exists()
    if unfinished:
        trainer.run_training()
    summary = Path(trainer.output_folder, "training.json")
    if unfinished or not summary.exists():
        write_whole(summary, json.dumps(report(trainer, device), indent=1) + "\n")
    validated = Path(trainer.output_folder, "validation", "summary.json")
    if args.validate and (unfinished or not validated.exists()):
        trainer.perform_actual_validation()


if __name__ == "__main__":
    end_with_parent()
    main()
