"""Engines for tests: does one answer, how the product is built there and called.

Environment: ``DOCKER_HOST`` is the socket of the engine that most tests use, Docker or Podman, as
for Docker's own command; ``PODMAN_HOST`` that of a Podman with which those of the runners are
repeated. ``IMAGE_BUILD_ARGS`` holds options for ``docker build`` (for example
``--build-arg TORCH=some.whl``) where a plain ``docker build .`` cannot or should not run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 900.0
ENGINES = [pytest.param(name, marks=pytest.mark.engine) for name in ("docker", "podman")]


@dataclass(frozen=True)
class Image:
    """A built image. ``name`` is a team's name: the image is ``name:latest``."""

    name: str
    id: str


def docker(
    *arguments: str | Path, check: bool = True, timeout_s: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run the docker command; with ``check`` a failure raises an error that holds its output."""
    done = subprocess.run(
        ["docker", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode != 0:
        output = (done.stdout + done.stderr)[-4000:]
        raise RuntimeError(f"docker {arguments[0]} exited with {done.returncode}:\n{output}")
    return done


def answers() -> bool:
    """Whether the engine that is in use answers. Asked once a session."""
    return _answers(os.environ.get("DOCKER_HOST"))


@contextlib.contextmanager
def in_use(name: str) -> Iterator[None]:
    """Use "docker" or "podman" within the block; skips the test where that one does not answer."""
    host = os.environ.get("PODMAN_HOST" if name == "podman" else "DOCKER_HOST")
    with pytest.MonkeyPatch.context() as patch:
        if host is not None:
            patch.setenv("DOCKER_HOST", host)
        if (name == "podman" and host is None) or not answers():
            pytest.skip(f"no engine answers as {name}")
        yield


def is_podman() -> bool:
    """Whether the engine that is in use is Podman."""
    return "Podman" in docker("version", "--format", "{{json .Server.Components}}").stdout


def drops_limits() -> bool:
    """Whether it runs without root on control groups of version 1, where it can limit nothing."""
    version, rootless = docker(
        "info", "--format", "{{.CgroupVersion}} {{.SecurityOptions}}"
    ).stdout.split(maxsplit=1)
    podman = is_podman() and os.getuid() != 0
    return version == "1" and (podman or "rootless" in rootless)


@functools.cache
def _answers(host: str | None) -> bool:
    if shutil.which("docker") is None:
        return False
    try:
        return docker("info", check=False, timeout_s=30).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@functools.cache
def gpu_flags() -> tuple[str, ...]:
    """Options of ``docker run`` that hand in one GPU; none where the engine has no GPU to give."""
    runtimes = docker("info", "--format", "{{json .Runtimes}}").stdout
    if "nvidia" not in runtimes or shutil.which("nvidia-smi") is None:
        return ()
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return ("--gpus", "device=0") if "GPU 0" in listed.stdout else ()


def build_image(root: Path = ROOT, cached: bool = True, **arguments: str) -> Image:
    """Build ``root``'s Dockerfile under a name that no other image has.

    ``cached``: what was built before may be taken. Build arguments that another Dockerfile does not
    know do no harm there.
    """
    name = f"flare-test-{uuid.uuid4().hex[:8]}"
    options = shlex.split(os.environ.get("IMAGE_BUILD_ARGS", ""))
    options += () if cached else ("--no-cache",)
    for argument, value in arguments.items():
        options += ["--build-arg", f"{argument}={value}"]
    docker("build", "--label", f"flare-test={name}", "--tag", f"{name}:latest", *options, root)
    found = docker("image", "inspect", "--format", "{{.Id}}", f"{name}:latest")
    return Image(name=name, id=found.stdout.strip())


def build_text(dockerfile: str) -> Image:
    """Build an image from the text of a Dockerfile, which may also COPY itself."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(dockerfile)
        return build_image(Path(folder))


def remove_image(image: Image) -> None:
    """Remove ``image`` by its id (all of its names with it), and every container made from it."""
    left = docker("ps", "--all", "--quiet", "--filter", f"ancestor={image.id}").stdout.split()
    if left:
        docker("rm", "--force", *left)
    docker("rmi", "--force", image.id)


def run_predict(
    image: Image, folder: Path, *options: str, gpu: bool = True
) -> subprocess.CompletedProcess[str]:
    """Segment ``folder``/inputs into ``folder``/outputs with the organisers' own command line.

    ``options`` are added to it; ``gpu=False`` hands no GPU in where there is one.
    """
    return docker(
        "container",
        "run",
        *(gpu_flags() if gpu else ()),
        *("-m", "28G", "--name", image.name, "--rm"),
        *("-v", f"{folder}/inputs/:/workspace/inputs/"),
        *("-v", f"{folder}/outputs/:/workspace/outputs/"),
        *options,
        f"{image.name}:latest",
        *("/bin/bash", "-c", "sh predict.sh"),
        check=False,
    )
