"""The locked requirements: current, complete, hashed; and the image that is made of them."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import engine

ROOT = Path(__file__).resolve().parent.parent
TOML: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = TOML["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
NNUNET = [Requirement(text) for text in TOML["dependency-groups"]["nnunet"]]
OURS = "flare-lesion"


@dataclass(frozen=True)
class Locked:
    """A package of a lock; ``direct``: asked for by the project itself."""

    version: str
    hashes: int
    direct: bool


def lock(name: str) -> dict[str, Locked]:
    """The packages of requirements/NAME.txt."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    found = {}
    for block in blocks:
        package, version = re.split("==|[ ;]", block)[:2]
        found[package] = Locked(version, block.count("--hash=sha256:"), "(pyproject.toml" in block)
    assert len(found) == len(blocks)
    return found


def asked(extra: str) -> list[Requirement]:
    """What the project and one of its extras ask for, with those that the extra names."""
    found = [Requirement(text) for text in PROJECT["dependencies"] + EXTRAS[extra]]
    named = {name for one in found if one.name == OURS for name in one.extras}
    others = [one for one in found if one.name != OURS]
    return others + [one for name in sorted(named) for one in asked(name)]


@pytest.mark.parametrize(
    ("name", "wanted"), [("image", asked("app")), ("dev", asked("dev")), ("nnunet", NNUNET)]
)
def test_a_lock_holds_what_pyproject_asks_for(name: str, wanted: list[Requirement]) -> None:
    locked = lock(name) | {"torch": lock("torch")["torch"]}
    versions = {canonicalize_name(one.name): one.specifier for one in wanted}
    direct = {package for package, one in locked.items() if one.direct}
    assert direct == versions.keys() - {"torch"}, "pyproject.toml has changed: `make lock`"
    refused = [p for p, allowed in versions.items() if locked[p].version not in allowed]
    assert refused == [], "pyproject.toml has changed: `make lock`"


def test_every_locked_package_has_a_hash_and_no_index_is_named() -> None:
    for file in (ROOT / "requirements").iterdir():
        assert all(one.hashes for one in lock(file.stem).values())
        assert "://" not in file.read_text()
        assert "index-url" not in file.read_text()


def test_the_locks_agree() -> None:
    dev, *others = (
        {package: one.version for package, one in lock(name).items()}
        for name in ("dev", "image", "torch", "nnunet")
    )
    for other in others:
        assert {p: other[p] for p in other.keys() & dev.keys()}.items() <= dev.items()
    assert lock("image").keys() <= dev.keys()


def test_what_only_torch_for_cuda_needs_is_in_its_lock_alone() -> None:
    cuda = re.compile("cuda-|nvidia-|triton")
    assert [p for name in ("image", "nnunet") for p in lock(name) if cuda.match(p)] == []
    of_dev = {package for package in lock("dev") if cuda.match(package)}
    assert of_dev == {one.name for one in asked("dev") if cuda.match(one.name)}
    assert sum(bool(cuda.match(package)) for package in lock("torch")) > len(of_dev)


def test_a_package_with_other_content_is_refused(tmp_path: Path) -> None:
    """A wheel of ours under a locked name and version, in the only place that pip may look in."""
    version = lock("image")["isal"].version
    with zipfile.ZipFile(tmp_path / f"isal-{version}-py3-none-any.whl", "w") as wheel:
        info = f"isal-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: isal\nVersion: {version}\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    locked = (ROOT / "requirements" / "image.txt").read_text()
    (block,) = [b for b in re.split(r"^(?=[\w.-]+==)", locked, flags=re.MULTILINE) if "isal==" in b]
    unlocked = f"isal=={version}\n"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links"]
    for text, says in ((unlocked, ""), (block, "DO NOT MATCH THE HASHES")):
        (tmp_path / "lock.txt").write_text(text)
        more = ["--target", str(tmp_path / "there"), "--requirement", str(tmp_path / "lock.txt")]
        command = [*pip, str(tmp_path), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == (not says), done.stderr
        assert says in done.stderr


def test_the_licences_are_those_of_the_locked_packages() -> None:
    text = (ROOT / "docs" / "licences.md").read_text()
    rows = re.findall(r"^\| ([\w.-]+) +\| ([\w.+]+) +\| (.+?) +\|$", text, re.MULTILINE)[1:]
    listed = {canonicalize_name(name): version for name, version, _ in rows}
    held = {name: one.version for name, one in (lock("torch") | lock("image")).items()}
    del held["setuptools"]  # the image has none left
    assert listed == held, "`make sbom IMAGE=… LICENCES=docs/licences.md`, with the default torch"


def made_here(image: engine.Image) -> dict[str, tuple[str, ...]]:
    """Every file that the Dockerfile adds to Debian's: its mode, owner, and link or digest."""
    container = engine.docker("create", image.id).stdout.strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            with tarfile.open(fileobj=export.stdout, mode="r|") as archive:
                return {
                    member.name: (
                        f"{member.mode:o} {member.uid} {member.gid} {member.linkname}",
                        *_digests(archive, member),
                    )
                    for member in archive
                    if member.name.startswith(("opt/venv/", "workspace/"))
                }
    finally:
        engine.docker("rm", container)


def _digests(archive: tarfile.TarFile, member: tarfile.TarInfo) -> list[str]:
    content = archive.extractfile(member) if member.isreg() else None
    return [] if content is None else [hashlib.sha256(content.read()).hexdigest()]


@pytest.mark.engine
def test_an_image_built_again_holds_the_same_bytes(image: engine.Image) -> None:
    again = engine.build_image(cached=False)
    try:
        first, second = made_here(image), made_here(again)
    finally:
        engine.remove_image(again)
    assert first.keys() == second.keys()
    assert [path for path in first if first[path] != second[path]] == []
    assert len(first) > 5000


@pytest.mark.engine
def test_what_an_image_holds_is_listed(image: engine.Image, tmp_path: Path) -> None:
    # What the tests run in stays as it is: --old-file.
    make = ["make", "--old-file=.venv/installed", "sbom", f"IMAGE={image.id}", f"SBOM={tmp_path}"]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)
    python, debian = (
        json.loads((tmp_path / f"{part}.cdx.json").read_text()) for part in ("python", "debian")
    )
    versions = {canonicalize_name(one["name"]): one["version"] for one in python["components"]}
    expected = {name: one.version for name, one in lock("image").items() if name != "setuptools"}
    assert {name: version for name, version in versions.items() if name in expected} == expected
    assert "torch" in versions
    listed = "dpkg-query --show --showformat '${Package} ${Version}\n'"
    installed = engine.docker("run", "--rm", image.id, "sh", "-c", listed).stdout.splitlines()
    there = {f"{one['name']} {one['version']}" for one in debian["components"]}
    assert set(installed) <= there
    licences = (tmp_path / "licences.md").read_text()
    assert all(f"| {one['name']} " in licences for one in python["components"])
