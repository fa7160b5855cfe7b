"""The wheel, installed into a fresh environment and used from a folder of somebody else's."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from tests.submissions import lesion, save, write_cases
from tests.test_requirements import lock
from tests.test_walls import imports_of
from volumes import VERSION

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = ("app", "evaluation", "training", "volumes")
# By the layout of a NIfTI file: the extra brings no other reader than the package's own.
SEGMENTS_WHAT_IS_BRIGHT = """
import gzip
import numpy as np
from pathlib import Path
for file in Path("inputs").iterdir():
    content = gzip.decompress(file.read_bytes())
    stored = {2: "u1", 4: "<i2", 16: "<f4", 64: "<f8"}[int.from_bytes(content[70:72], "little")]
    mask = (np.frombuffer(content, stored, offset=352) > 0).astype(stored)
    name = file.name.replace("_0000", "")
    (Path("outputs") / name).write_bytes(gzip.compress(content[:352] + mask.tobytes()))
"""

Command = Callable[..., str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment, with what the extra `evaluation` brings and no more."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip"]
    wheel = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(wheel, check=True)
    (file,) = folder.glob("*.whl")
    venv.create(folder / "venv")
    install = [*pip, "--python", str(folder / "venv" / "bin" / "python"), "install", "--quiet"]
    pins = folder / "pins.txt"  # without hashes: a wheel made here has none that is known
    pins.write_text("".join(f"{name}=={one.version}\n" for name, one in lock("dev").items()))
    subprocess.run([*install, "--constraint", str(pins), f"{file}[evaluation]"], check=True)
    return folder / "venv"


@pytest.fixture
def call(installed: Path, tmp_path: Path) -> Command:
    """Calls an installed command in a folder with packages of the same names; what it prints."""
    elsewhere = tmp_path / "elsewhere"
    for room in ROOMS:
        (elsewhere / room).mkdir(parents=True)
        (elsewhere / room / "__init__.py").write_text("raise ImportError('not the one installed')")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(name: str, *arguments: object, **more: str) -> str:
        command = [str(installed / "bin" / name), *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=elsewhere,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    return run


@pytest.mark.slow
def test_every_room_is_installed_with_its_types(installed: Path, call: Command) -> None:
    code = "import app, evaluation, training, volumes; print(volumes.__path__[0], volumes.VERSION)"
    folder, version = call("python", "-P", "-c", code).split()
    packages = Path(folder).parent
    assert packages.is_relative_to(installed)
    assert version == VERSION
    assert all((packages / room / "py.typed").is_file() for room in ROOMS)
    assert not list(packages.glob("tests*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in PROJECT["scripts"] if "segment" in name or "evaluate" in name]
)
def test_commands_say_their_version_where_there_is_no_torch(name: str, call: Command) -> None:
    assert call(name, "--version").split()[-1] == VERSION


@pytest.mark.slow
def test_the_harness_runs_scores_and_reports(
    installed: Path, call: Command, tmp_path: Path
) -> None:
    scans, labels = write_cases(tmp_path, ["case1", "case2"])
    predict = tmp_path / "predict.py"
    predict.write_text(SEGMENTS_WHAT_IS_BRIGHT)
    submission = ("--command", f"{installed / 'bin' / 'python'} {predict}")
    assert "case1" in call("flare-evaluate", "bench", *submission, "--scans", scans)
    results = tmp_path / "results"
    output = ("--labels", labels, "--output", results / "team")
    call("flare-evaluate", "run", *submission, "--cases", scans, *output)
    scored = ("--predictions", labels, "--labels", labels, "--output", results / "again")
    call("flare-evaluate", "score", *scored)
    for table in results.glob("*/results.csv"):
        rows = list(csv.DictReader(table.read_text().splitlines()))
        assert [float(row["dsc"]) for row in rows] == [1.0, 1.0]
    page = tmp_path / "report.html"
    call("flare-evaluate", "report", results, "--output", page)
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.slow
def test_the_app_segments_on_the_command_line_and_from_python(
    call: Command, tmp_path: Path
) -> None:
    """With torch from this environment: to install it again would fetch gigabytes."""
    scan, mask = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    save(scan, np.where(lesion(), 50, -1000).astype(np.int16))
    files = ("--input", scan, "--output", mask, "--device", "cpu")
    torch = {"PYTHONPATH": sysconfig.get_path("purelib")}
    call("flare-segment", *files, "--model", ROOT / "weights" / "cpu-small", **torch)
    grids = [nibabel.Nifti1Image.from_filename(file).affine for file in (mask, scan)]
    np.testing.assert_array_equal(*grids)
    model = ROOT / "weights" / "cpu-small"
    code = (
        f"from app import load; found = load({str(model)!r}, 'cpu').predict({str(scan)!r}); "
        f"found.write({str(tmp_path / 'api.nii.gz')!r}); print(*found.voxels_zyx.shape)"
    )
    shape = call("python", "-P", "-c", code, **torch).split()
    assert tuple(map(int, shape)) == lesion().shape[::-1]
    assert (tmp_path / "api.nii.gz").read_bytes() == mask.read_bytes()


def names(requirements: list[str]) -> set[str]:
    """The packages of requirements."""
    return {re.split(r"[^\w-]", requirement)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_asks_for_what_it_imports(room: str) -> None:
    asked = PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(room, [])
    if room == "app":  # imported for DICOM alone
        asked += PROJECT["optional-dependencies"]["dicom"]
    if room == "training":  # on top of the app; its own in nnU-Net's environment
        asked += PROJECT["optional-dependencies"]["app"]
        asked += lock("nnunet")
    modules = {module.partition(".")[0] for _, module in imports_of(room)}
    foreign = modules - {*ROOMS, *sys.stdlib_module_names}
    brings = importlib.metadata.packages_distributions()
    packages = {name.lower() for module in foreign for name in brings.get(module, [module])}
    assert packages <= names(asked)
