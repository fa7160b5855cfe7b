"""benchmarks.pack without a network: what goes in, where it lies, and the scripts that start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.checkout import extract
from benchmarks.pack import __main__ as program
from benchmarks.pack import wheels
from benchmarks.pack.packages import folders, needed, normalised, pinned
from benchmarks.pack.scripts import write_scripts
from evaluation.errors import EvaluationError
from examples import samples
from examples.samples import Sample
from tests.nnunet_models import ORACLE_PYTHON, ROOT
from tests.test_requirements import lock

# What torch asks for, and what is no import of anybody's (setuptools' hook at every start).
WITH_TORCH = {"torch", "typing-extensions", "sympy", "mpmath", "networkx", "setuptools"}
DISTRIBUTIONS = """
import json, sys
from importlib.metadata import distributions
owner = {str(d.locate_file(f)): d.name for d in distributions() for f in d.files or ()}
files = [getattr(m, "__file__", None) for m in list(sys.modules.values())]
print(json.dumps(sorted({owner[f] for f in files if f in owner})))
"""
# nibabel imports pydicom where it is there, and does without.
APP_IMPORTS = """
import sys
sys.modules["pydicom"] = None
sys.path.insert(0, ".")
import _pytest.config.argparsing, _pytest.terminal, pytest
import app.__main__, app.predict, benchmarks.budgets, benchmarks.sizes.__main__
import evaluation.gpu.poller, tests.conftest, tests.training.trained_folder
import tests.cuda.test_graphs, tests.cuda.test_masks, tests.cuda.test_norm_kernel
import tests.cuda.test_time_budget
"""
NNUNET_IMPORTS = """
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference import export_prediction, predict_from_raw_data
"""
SAYS = """#!/bin/sh
echo "$PYTHONPATH"
for a in "$@"; do echo "[$a]"; done
"""


def imported(python: str | Path, imports: str) -> set[str]:
    """The packages that these imports load, by their files."""
    done = subprocess.run(
        [python, "-c", imports + DISTRIBUTIONS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {normalised(name) for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.slow
def test_all_that_the_apps_side_imports_goes_in() -> None:
    assert imported(sys.executable, APP_IMPORTS) - WITH_TORCH <= set(needed("app"))


@pytest.mark.oracle
@pytest.mark.skipif(not ORACLE_PYTHON.exists(), reason="no nnU-Net: run `make oracle`")
def test_all_that_nnunet_imports_goes_in() -> None:
    found = imported(ORACLE_PYTHON, NNUNET_IMPORTS)
    assert "nnunetv2" in found
    assert found - WITH_TORCH <= set(needed("nnunet"))


def test_packages_lie_once_as_pinned_and_never_torch() -> None:
    found = folders(ROOT, [])
    everything = [r for requirements in found.values() for r in requirements]
    assert len({r.partition("==")[0] for r in everything}) == len(everything)
    assert not {r.partition("==")[0] for r in everything} & WITH_TORCH
    assert f"numpy=={lock('dev')['numpy'].version}" in found["both"]
    assert any(r.startswith("pytest==") for r in found["app"])
    assert any(r.startswith("nnunetv2==") for r in found["nnunet"])


def test_what_is_there_is_left_out_by_any_spelling() -> None:
    found = folders(ROOT, ["NumPy", "scikit_image"])
    names = {r.partition("==")[0] for requirements in found.values() for r in requirements}
    assert not names & {"numpy", "scikit-image"}
    assert "scipy" in names


def test_two_versions_lie_apart(tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    pins = "".join(f"{n}==1 \\\n    --hash=sha256:00\n" for n in needed("app"))
    (tmp_path / "requirements" / "dev.txt").write_text(pins)
    pins = "".join(f"{n}=={2 if n == 'numpy' else 1}\n" for n in needed("nnunet"))
    (tmp_path / "requirements" / "nnunet.txt").write_text(pins)
    found = folders(tmp_path, [])
    assert "numpy==1" in found["app"]
    assert "numpy==2" in found["nnunet"]
    assert "scipy==1" in found["both"]


def test_a_package_without_a_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("numpy==1\n")
    with pytest.raises(EvaluationError, match=r"^scipy: not pinned in .*r\.txt$"):
        pinned(["numpy", "scipy"], tmp_path / "r.txt")


def run(command: list[str | Path], **env: str) -> list[str]:
    clean = {"PATH": os.environ["PATH"], **env}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_scripts_find_their_packages_wherever_they_lie(tmp_path: Path) -> None:
    says = tmp_path / "says"
    says.write_text(SAYS)
    says.chmod(0o755)
    write_scripts(tmp_path / "made")
    top = (tmp_path / "made").rename(tmp_path / "moved here")
    app, nnunet = top / ".venv/bin/python", top / ".venv-nnunet/bin/python"
    own = {n: f"{top}/packages/{n}:{top}/packages/both" for n in ("app", "nnunet")}
    assert run([app, "-c", "a b"], PACK_PYTHON=str(says)) == [own["app"], "[-c]", "[a b]"]
    assert run([nnunet], PACK_PYTHON=str(says)) == [own["nnunet"]]
    # What the machine has comes last; nothing of the app's when it starts nnU-Net.
    nested = "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"
    show = "import os; print(os.environ['PYTHONPATH'])"
    env = {"PACK_PYTHON": sys.executable, "PYTHONPATH": "/machine"}
    assert run([app, "-c", nested, nnunet, "-c", show], **env) == [f"{own['nnunet']}:/machine"]
    assert run([app, "-c", nested, sys.executable, "-c", show], **env) == [f"{own['app']}:/machine"]


def test_nnunets_program_is_started_by_its_own_python(tmp_path: Path) -> None:
    write_scripts(tmp_path)
    module = tmp_path / "packages/nnunet/nnunetv2/inference/predict_from_raw_data.py"
    module.parent.mkdir(parents=True)
    module.write_text("def predict_entry_point_modelfolder():\n    import sys; print(sys.argv[1:])")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / ".venv-nnunet/bin/nnUNetv2_predict_from_modelfolder")
    assert run([link, "-f", "0"], PACK_PYTHON=sys.executable) == ["['-f', '0']"]


def test_a_wheel_is_laid_out_without_tests_and_scripts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        for name in (
            "a/__init__.py",
            "a/testing.py",
            "a/tests/test_a.py",
            "a/__pycache__/x.pyc",
            "a-1.data/purelib/b.py",
            "a-1.data/scripts/a",
            "a-1.dist-info/METADATA",
            "../outside.py",
        ):
            wheel.writestr(name, "")
        wheel.mkdir("a-1.data")
    wheels.unpack(tmp_path / "a.whl", tmp_path / "to")
    files = (f for f in (tmp_path / "to").rglob("*") if f.is_file())
    found = {str(f.relative_to(tmp_path / "to")) for f in files}
    assert found == {"a/__init__.py", "a/testing.py", "b.py", "a-1.dist-info/METADATA"}
    assert not (tmp_path / "outside.py").exists()


def test_pips_own_reason_is_the_line() -> None:
    said = "WARNING: x\nERROR: Could not find\nERROR: No matching distribution found for a==1\n"
    assert wheels.reason(said, 1) == "No matching distribution found for a==1"
    assert wheels.reason("", 2) == "pip exited with 2"


def repository(folder: Path) -> Path:
    """With one committed file, one that is changed since, and one that is not tracked."""
    folder.mkdir()
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    (folder / "tracked").write_text("committed")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    (folder / "tracked").write_text("changed")
    (folder / "untracked").touch()
    return folder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with scans, from which a pack needs no network."""
    root = repository(tmp_path / "root")
    scan = root / program.SAMPLES / "images" / "x_0000.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.write_text("scan")
    monkeypatch.setattr(program, "ROOT", root)
    monkeypatch.setattr(program, "folders", lambda *_: {"app": ["a==1"]})
    monkeypatch.setattr(samples, "fetch", lambda _, names: [Sample("x", scan, scan)])
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("a.py", "")
    monkeypatch.setattr(wheels, "fetch", lambda *_: [tmp_path / "a.whl"])
    return root


def test_the_archive_holds_what_is_committed_and_what_it_needs(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "name.tar.xz"
    assert program.main(["--python", "3.12", "--output", str(output)]) == 0
    with tarfile.open(output) as archive:
        members = {m.name: m for m in archive if m.isfile()}
        committed = archive.extractfile("name/tracked")
        assert committed is not None
        assert committed.read() == b"committed"
    assert set(members) == {
        "name/tracked",
        "name/packages/app/a.py",
        "name/runs/samples/images/x_0000.nii.gz",
        "name/.commit",
        "name/.venv/bin/python",
        "name/.venv-nnunet/bin/python",
        "name/.venv-nnunet/bin/nnUNetv2_predict_from_modelfolder",
    }
    assert members["name/.venv/bin/python"].mode & 0o111
    assert {(m.uid, m.uname) for m in members.values()} == {(0, "")}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--python", "3.x"], "error: --python 3.x: should be a version such as 3.12"),
        (["--output", "x.zip"], "error: --output x.zip: should end with .tar.xz"),
    ],
)
def test_arguments_in_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(arguments) == 1
    assert capsys.readouterr().err == line + "\n"


def test_a_failure_leaves_what_was_there(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    output = tmp_path / "out" / "name.tar.xz"
    output.parent.mkdir()
    output.write_text("before")
    monkeypatch.setattr(tarfile.TarFile, "add", full)
    assert program.main(["--output", str(output)]) == 1
    assert capsys.readouterr().err == "error: no space left\n"
    assert [f.read_text() for f in output.parent.iterdir()] == ["before"]


def test_without_git_or_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(EvaluationError, match=r"^git archive HEAD: .*not a git repository"):
        extract("HEAD", tmp_path / "top", root=tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EvaluationError, match=r"^git is not installed"):
        extract("HEAD", tmp_path / "top", root=tmp_path)
