"""The app, its previous release and nnU-Net on the published networks and image sizes, in one run.

``python -m benchmarks.sizes`` runs on any machine, with or without a GPU. Every run is a
cold process; programs take turns on the same weights and scans. In ``--output``:
sizes.md, and sizes/ with every measurement (runs.jsonl), logs, curves of the
GPU's memory, and the scans and weights that were made.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from msgspec.structs import replace

from app.resample import resampled_shape
from app.sliding_window import window_count
from benchmarks import machine, programs
from benchmarks.command_line import exit_code, publish
from benchmarks.log import Log, Time
from benchmarks.programs import ROOT, Steps
from benchmarks.published import NETWORKS, Published, Weights, has_nnunet, make_weights
from benchmarks.sizes import versions
from benchmarks.sizes.meter import CommandFailed, Meter
from benchmarks.sizes.options import long_parser
from benchmarks.sizes.record import APP, NNUNET, PREVIOUS, STAGED, Measurement
from benchmarks.sizes.report import Report, Setting
from benchmarks.sizes.scans import CPU_SLICES, LONG_SLICES, PUBLISHED_SLICES, geometry, make_scan
from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.numbers import positive
from examples import samples
from volumes.files import write_whole

STEP_SIZE = 0.5  # nnU-Net's default and the app's
WARM_UP_SLICES = 8  # of a run that is not counted: libraries come from the disk once
_HAS_CUDA = "import torch, sys; sys.exit(not torch.cuda.is_available())"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    args = _parser().parse_args(arguments)

    def do() -> bool:
        benchmark = _prepare(args)
        with benchmark.meter:
            benchmark.run(args.repeats, Time(args.minutes))
        return True

    return exit_code(do)


def _parser() -> argparse.ArgumentParser:
    options = long_parser("sizes", __doc__, sorted((*PUBLISHED_SLICES, LONG_SLICES, CPU_SLICES)))
    add = options.add_argument
    add("--device", choices=("cpu", "cuda"), help="default: cuda if torch sees one")
    add(
        "--programs",
        nargs="+",
        choices=(APP, PREVIOUS, NNUNET),
        help="default: all there are (nnunet: `make oracle`; previous: a tag or --previous)",
    )
    add(
        "--previous",
        metavar="REF",
        help="an earlier version, as a git reference or a folder with its app/ (newest tag)",
    )
    add("--repeats", type=positive(int), default=1, help="of each run; medians are shown")
    return options


def _prepare(args: argparse.Namespace) -> Benchmark:
    """Find out what there is to measure, and with what; raises EvaluationError."""
    device = args.device or _device()
    gpu = devices.find(args.gpu) if device == "cuda" else None
    if device == "cuda" and gpu is None:
        raise EvaluationError("--device cuda: NVML finds no GPU, so none can be measured")
    output = args.output.resolve()
    folder = output / "sizes"
    reference = args.previous or versions.newest_release()
    chosen = args.programs or [
        APP,
        *([PREVIOUS] if reference else []),
        *([NNUNET] if has_nnunet() else []),
    ]
    found, previous = {APP: versions.app_version()}, None
    if PREVIOUS in chosen:
        if reference is None:
            raise EvaluationError("--programs previous: there is no tag; name one by --previous")
        previous, found[PREVIOUS] = versions.previous_app(reference, folder / "previous")
    if NNUNET in chosen:
        if not has_nnunet():
            raise EvaluationError("--programs nnunet: it is not installed; call `make oracle`")
        found[NNUNET] = versions.nnunet_version()
    names = args.networks or (list(NETWORKS) if gpu else ["huang"])
    (sample,) = samples.fetch(ROOT / "runs" / "samples", names=[args.scan])
    slices = list(dict.fromkeys(args.slices))
    setting = Setting(
        machine=machine.description(gpu),
        on_gpu=gpu is not None,
        scan=args.scan,
        repeats=args.repeats,
        networks={name: NETWORKS[name].title for name in names},
        slices=slices,
        programs=[p for p in (APP, PREVIOUS, NNUNET) if p in chosen],
        versions=found,
        staged_slices=CPU_SLICES if CPU_SLICES in slices else slices[0],
    )
    same = {"machine": setting.machine, "device": device, "scan": setting.scan, **found}
    log = Log(folder / "runs.jsonl", Measurement, same, args.resume)
    return Benchmark(setting, output, device, sample.scan, previous, Meter(gpu, folder), log)


def _device() -> str:
    # In a process of its own: this one stays off the GPU.
    done = subprocess.run([sys.executable, "-c", _HAS_CUDA], check=False)
    return "cuda" if done.returncode == 0 else "cpu"


@dataclass
class Benchmark:
    """One run of the benchmark, all its choices made. `previous`: the folder with that app/."""

    setting: Setting
    output: Path
    device: str
    source: Path  # the scan that all others are made from
    previous: Path | None
    meter: Meter
    log: Log[Measurement]
    _warm: bool = False

    @property
    def folder(self) -> Path:
        """Where everything but the report is kept."""
        return self.output / "sizes"

    def run(self, repeats: int, time: Time) -> None:
        """Measure what the log lacks, as far as there is time, and print the report.

        The report is written anew after each measurement.
        """
        networks = self.setting.networks
        wanted = {m.key: m for name in networks for m in self._plan(name, repeats)}
        for key in self.log.lacking(list(wanted), time):
            network = NETWORKS[wanted[key].network]
            weights = make_weights(network, self.folder / "networks")
            if not self._warm:
                self._warm_up(network, weights)
            self.log.add(self._measured(wanted[key], network, weights))
            write_whole(self.output / "sizes.md", self.report())
        publish(self.report(), self.output / "sizes.md")
        _say(self.log.rest(list(wanted)))

    def report(self) -> str:
        """What is known so far, as Markdown."""
        return Report(self.setting, self.log.runs).text()

    def _plan(self, network: str, repeats: int) -> Iterator[Measurement]:
        for slices, repeat in itertools.product(self.setting.slices, range(repeats)):
            for program in self.setting.programs:
                yield Measurement(network, slices, program, repeat)
            if NNUNET in self.setting.programs and slices == self.setting.staged_slices:
                yield Measurement(network, slices, STAGED, repeat)

    def _warm_up(self, network: Published, weights: Weights) -> None:
        self._warm = True
        for program in self.setting.programs:
            wanted = Measurement(f"warm-up-{network.name}", WARM_UP_SLICES, program, 0)
            self._measured(wanted, network, weights)

    def _measured(self, wanted: Measurement, network: Published, weights: Weights) -> Measurement:
        scan = make_scan(self.source, wanted.slices, self.folder / "scans")
        name = f"{wanted.network}-{wanted.slices}-{wanted.program}-{wanted.repeat}"
        mask = self.folder / "masks" / f"{name}.nii.gz"
        mask.parent.mkdir(exist_ok=True)
        command, env, cwd = self._command(wanted.program, weights, scan, mask)
        try:
            cost, printed = self.meter.run(name, command, env, cwd)
        except CommandFailed as error:
            _say(f"{name}: {error}")
            return replace(wanted, error=str(error))
        known = {k: v for k, v in asdict(cost).items() if k != "notes"}
        measured = replace(wanted, **known, notes=list(cost.notes))
        vram = "" if cost.peak_vram_mib is None else f", {cost.peak_vram_mib:.0f} MiB of VRAM"
        _say(f"{name}: {cost.wall_s:.2f} s, {cost.peak_rss_mib:.0f} MiB{vram}")
        return _with_what_it_said(measured, printed, scan, network)

    def _command(
        self, program: str, weights: Weights, scan: Path, mask: Path
    ) -> tuple[programs.Command, dict[str, str], Path]:
        """The command, its environment and where it runs."""
        without_suffix = mask.with_name(mask.name.removesuffix(".nii.gz"))
        if program == STAGED:
            command = programs.nnunet_stages_command(
                weights.trained, scan, without_suffix, self.device
            )
        elif program == NNUNET:
            command = programs.nnunet_command(
                weights.trained, scan.parent, without_suffix, self.device
            )
        else:
            command = programs.app_command(weights.model, scan, mask, self.device)
            # `python -m` looks where it is started first.
            return command, {}, self.previous if program == PREVIOUS and self.previous else ROOT
        return command, programs.nnunet_environment(self.folder), self.folder


def _with_what_it_said(
    measured: Measurement, printed: str, scan: Path, network: Published
) -> Measurement:
    """The measurement with the stages and steps that the program printed, as far as it did."""
    if measured.program == STAGED:
        return replace(measured, stages=programs.nnunet_stages(printed))
    if measured.program == NNUNET:
        return measured
    # A CT has no border of zeros that would be cropped.
    settings = network.settings
    shape = resampled_shape(*geometry(scan), settings.spacing_zyx)
    planned = Steps(STEP_SIZE, window_count(shape, settings.patch_zyx, STEP_SIZE))
    steps = programs.app_steps(printed, planned)
    notes = [*measured.notes, *programs.app_warnings(printed)]
    try:
        stages = programs.app_stages(printed)
    except ValueError:  # an earlier version may say it in other words
        stages = {}
    return replace(measured, stages=stages, windows=steps.windows, step=steps.size, notes=notes)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
