"""`python -m evaluation` imports what the command that is called needs, and when it needs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine import ROOT
from tests.nnunet_models import smooth_noise, write_scan

COMMANDS = ("run", "batch", "rank", "report", "score", "bench")
# What takes time to import, or may not be there.
HEAVY = {
    *("dask", "distributed", "matplotlib", "torch", "playwright", "mypy", "SimpleITK", "scipy"),
    *("numpy", "nibabel", "docker", "requests", "cc3d", "PIL", "cryptography"),
}
_PRINT = """
import sys
from evaluation.__main__ import main
try:
    code = main(sys.argv[1:])
except SystemExit as left:
    code = left.code
print("\\nMODULES", *{name.partition(".")[0] for name in sys.modules})
sys.exit(code)
"""
_WITHOUT = """
import sys
for name in ("dask", "distributed"):
    sys.modules[name] = None  # as if it were not installed
from evaluation.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def imported(*arguments: str | Path) -> set[str]:
    command = [sys.executable, "-c", _PRINT, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("MODULES ")[2].split())


def test_help_lists_every_command_and_imports_none() -> None:
    assert not imported("--help") & HEAVY
    command = [sys.executable, "-m", "evaluation", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"\n    {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_waits_for_nothing(command: str) -> None:
    assert not imported(command, "--help") & HEAVY


def score_arguments(folder: Path) -> list[str | Path]:
    mask = write_scan(folder / "masks" / "X.nii.gz", smooth_noise((8, 9, 10), 0) > 0, (2, 1, 1))
    return [
        "score",
        "--predictions",
        mask.parent,
        "--labels",
        mask.parent,
        "--output",
        folder / "o",
    ]


def test_scoring_needs_no_more_than_it_uses(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    found = imported(*score_arguments(tmp_path))
    assert not found & {"torch", "playwright", "mypy", "dask", "distributed", "matplotlib"}
    assert list((tmp_path / "o").glob("*.csv"))


def test_a_machine_without_dask_runs_the_harness(tmp_path: Path) -> None:
    cases, labels = tmp_path / "cases", tmp_path / "labels"
    cases.mkdir()
    labels.mkdir()
    voxels = smooth_noise((8, 9, 10), 0)
    write_scan(cases / "X_0000.nii.gz", voxels, (2, 1, 1))
    mask = write_scan(labels / "X.nii.gz", voxels > 0, (2, 1, 1))
    submission = tmp_path / "submission"
    submission.mkdir()
    (submission / "predict.sh").write_text(f"cp '{mask}' outputs/X.nii.gz\n")
    arguments = ["run", "--command", "sh predict.sh", "--gpu", "none", "--cases", cases]
    arguments += ["--labels", labels, "--output", tmp_path / "results"]
    command = [sys.executable, "-c", _WITHOUT, *map(str, arguments)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=submission, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "modules", ["evaluation.batch.batch", "evaluation.report.parts, evaluation.report.document"]
)
def test_what_draws_nothing_does_without_matplotlib(modules: str) -> None:
    script = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
