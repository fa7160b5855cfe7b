"""A results folder as `run` and `batch` leave it, with simulated figures."""

import json
import shutil
from pathlib import Path

import numpy as np
from msgspec import to_builtins
from msgspec.structs import replace

from evaluation import json_file
from evaluation.gpu.curve import Curve
from evaluation.gpu.curve_file import write_curve
from evaluation.parallel import parallel_map
from evaluation.record import Record
from evaluation.states import State
from evaluation.store import Store
from evaluation.teams import Entry
from tests.evaluation.records import ACCURACY, RECORD, USAGE, VRAM

BASELINE_MIB = 612.0
PICTURE = Path(__file__).parents[3] / "weights" / "cpu-small" / "preview.png"
FAILURES = (
    (State.TIMEOUT, "stopped at the time limit of 3600 s; its last line: window 17 of 90"),
    (State.OOM_VRAM, "exit code 1, out of GPU memory: CUDA out of memory"),
    (State.NONZERO_EXIT, "exit code 139: Segmentation fault"),
    (State.NO_OUTPUT, "no mask"),
    (State.BAD_OUTPUT, "case.nii.gz: not on the scan's grid: its size is 512 x 512 x 1"),
)
TRACEBACK = (
    "Traceback (most recent call last):",
    "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.25 GiB",
)


def simulate(folder: Path, teams: list[str], cases: int, *, samples: int = 1200) -> None:
    """Write a folder a team, its cases with GPU curves of so many samples."""
    jobs = [(folder / team, seed, cases, samples) for seed, team in enumerate(teams)]
    list(parallel_map(write_team, jobs))


def write_team(job: tuple[Path, int, int, int]) -> None:
    """Write one team's folder; quality, speed and how often it fails are drawn once for it."""
    folder, seed, cases, samples = job
    rng = np.random.default_rng(seed)
    quality, speed, failing = rng.uniform(0.45, 0.8), rng.uniform(9, 48), rng.uniform(0, 0.1)
    peak_mib = rng.uniform(1500, 5200)
    store = Store(folder)
    for path in (store.path(""), store.log(""), store.curve("")):
        path.parent.mkdir(parents=True)
    for i in range(cases):
        name = f"FLARE_Ts_{i + 1:04d}"
        runtime_s = speed * rng.lognormal(0, 0.25)
        curve = vram_curve(rng, runtime_s, peak_mib * rng.normal(1, 0.03), samples)
        one = _record(rng, name, quality, runtime_s, curve)
        if rng.random() < failing:
            one = _failed(one, rng)
        if rng.random() > 0.01:
            one = replace(one, vram=one.vram and replace(one.vram, contaminated=()))
        # As Store.save, without waiting for the disk ten thousand times.
        store.path(name).write_text(json.dumps(to_builtins(one)))
        store.log(name).write_text("\n".join(one.log))
        write_curve(store.curve(name), curve, 0.0)


def vram_curve(rng: np.random.Generator, runtime_s: float, peak_mib: float, samples: int) -> Curve:
    """Return memory that climbs in steps, stays with the windows' ups and downs, and falls."""
    t_s = np.sort(np.linspace(-1, runtime_s + 1, samples) + rng.normal(0, 5e-4, samples))
    steps = [(0.15, 0.1), (0.2, 0.45), (0.3, 0.8), (0.85, 0.5)]
    share = np.select([t_s < at * runtime_s for at, _ in steps], [0, 0.1, 0.45, 0.8], 0.5)
    windows = np.where(share == 0.8, rng.choice([0.0, 0.1, 0.2], samples), 0.0)
    inside = (t_s > 0.08 * runtime_s) & (t_s < runtime_s)
    used_mib = BASELINE_MIB + np.where(inside, peak_mib * (share + windows), 0)
    used_mib = 2 * np.rint(used_mib / 2)  # CUDA's blocks
    total = np.full(samples, 81920.0)
    return Curve(t_s, t_s + 2e-4, used_mib, total - used_mib, np.full(samples, 8.0), total)


def write_refused(folder: Path, message: str) -> None:
    """Write the folder of a team whose archive was refused."""
    json_file.write(folder / "submission.json", Entry("late.tar.gz", None, "refused", message))


def _record(
    rng: np.random.Generator, name: str, quality: float, runtime_s: float, curve: Curve
) -> Record:
    dsc = float(np.clip(rng.normal(quality, 0.18), 0, 0.97))
    dsc = dsc if dsc > 0.2 else 0.0
    usage = replace(
        USAGE,
        runtime_s=runtime_s,
        flare_time_s=runtime_s + 0.5,
        cpu_s=runtime_s * 1.7,
        peak_ram_mib=float(rng.normal(6000, 300)),
    )
    net_mib = curve.used_mib - BASELINE_MIB
    vram = replace(
        VRAM,
        baseline_mib=BASELINE_MIB,
        peak_vram_mib=float(net_mib.max()),
        area_mib_s=float(np.trapezoid(net_mib, curve.t_s)),
        area_above_limit_mib_s=float(np.trapezoid(np.maximum(net_mib - 4096, 0), curve.t_s)),
    )
    reference_ml = float(rng.lognormal(2, 1.2))
    accuracy = replace(
        ACCURACY,
        dsc=dsc,
        nsd=dsc * 0.85,
        classes={"Lesion": (dsc, dsc * 0.85)},
        reference_ml=reference_ml,
        predicted_ml=reference_ml * float(rng.normal(1, 0.2)),
        lesion_f1=dsc,
        lesion_count=int(rng.integers(1, 6)),
    )
    environment = {
        "image_digest": "sha256:4f1c0e2b9d0a",
        "engine": "Docker 28.3.2",
        "machine": "AMD EPYC 7313, 16 cores, 128 GiB",
        "gpu": {"name": "NVIDIA A100 80GB PCIe", "driver": "570.86.15"},
        "tool_version": "0.3.0",
    }
    return replace(
        RECORD, case=name, usage=usage, vram=vram, accuracy=accuracy, environment=environment
    )


def _failed(one: Record, rng: np.random.Generator) -> Record:
    state, message = FAILURES[rng.integers(len(FAILURES))]
    assert one.accuracy is not None
    nothing = replace(one.accuracy, dsc=0.0, nsd=0.0, predicted_ml=0.0, lesion_f1=0.0)
    log = ("loading the model", *(f"window {i} of 90" for i in range(1, 30)), *TRACEBACK)
    return replace(one, state=state, message=message, accuracy=nothing, log=log)


def write_pictures(folder: Path, count: int) -> None:
    """Give a team's first sound cases a picture each: one that the harness drew of a real CT."""
    store = Store(folder)
    records = (store.load(path.stem) for path in sorted((folder / "cases").iterdir()))
    sound = [one.case for one in records if one and one.state is State.OK]
    for name in sound[:count]:
        path = store.picture("overlays", f"{name}-largest")
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(PICTURE, path)
