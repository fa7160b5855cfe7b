"""How the programs that are compared are called, and what they say of their own stages."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NNUNET = ROOT / ".venv-nnunet" / "bin"
STAGES = ("read", "preprocess", "network", "restore", "write")
DEVICE = "device"  # a stage that only some versions of the app have: what the first touch takes
Command = list[str | Path]
_LARGER_STEP = re.compile(r"starting again with step ([\d.]+) \((\d+) windows\)")


def nnunet_command(trained: Path, inputs: Path, output: Path, device: str) -> Command:
    """nnU-Net's own command line, with its worker processes, for a folder of scans."""
    program = NNUNET / "nnUNetv2_predict_from_modelfolder"
    files: Command = ["-i", inputs, "-o", output, "-m", trained, "-f", "0"]
    on = ["-device", device] if device != "cuda" else []  # its default
    return [program, *files, *on, "--disable_tta", "--disable_progress_bar"]


def nnunet_stages_command(trained: Path, scan: Path, output: Path, device: str) -> Command:
    """The same scan through nnU-Net's functions, timed one by one."""
    script = ROOT / "benchmarks" / "nnunet_stages.py"
    return [NNUNET / "python", script, trained, scan, output, device]


def nnunet_environment(folder: Path) -> dict[str, str]:
    """What nnU-Net asks for and does not use here."""
    return {k: str(folder) for k in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}


def app_command(model: Path, scan: Path, output: Path, device: str, *options: str) -> Command:
    """The app; which one it is the working folder or PYTHONPATH decides."""
    files: Command = ["--input", scan, "--output", output, "--model", model]
    return [sys.executable, "-m", "app", *files, "--device", device, *options]


def nnunet_stages(output: str) -> dict[str, float]:
    """What nnunet_stages.py printed: seconds per stage, ``ready`` among them."""
    stages: dict[str, float] = json.loads(output.rpartition("STAGES ")[2])
    return stages


def app_stages(output: str) -> dict[str, float]:
    """Seconds per stage that the app logs itself, and ``ready``; ValueError if it does not.

    DEVICE is among them where the app names it.
    """
    stages = {s: float(t) for s, t in re.findall(r"(\w+) ([\d.]+) s[,\s]", output)}
    ready = re.search(r"ready ([\d.]+) s after process start", output)
    missing = [s for s in STAGES if s not in stages] + ["ready"] * (ready is None)
    if missing or ready is None:
        raise ValueError(f"no time for {', '.join(missing)} in {output[-500:]!r}")
    known = {s: stages[s] for s in (DEVICE, *STAGES) if s in stages}
    return {**known, "ready": float(ready[1])}


@dataclass(frozen=True)
class Steps:
    """The largest step between windows, in patches, and how many windows that gave."""

    size: float
    windows: int


def app_steps(output: str, planned: Steps) -> Steps:
    """What the app came to: what was planned, unless it says that it took a larger step."""
    larger = _LARGER_STEP.findall(output)
    return Steps(float(larger[-1][0]), int(larger[-1][1])) if larger else planned


def app_warnings(output: str) -> list[str]:
    """The app's warnings."""
    return [li for li in output.splitlines() if li.startswith("warning: ")]
