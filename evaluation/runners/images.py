"""Images of an engine: build one from a submission's folder, load one from a team's archive."""

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import docker
import requests
from docker.models.images import Image

from evaluation.errors import EvaluationError
from evaluation.runners import InfrastructureError, InputError, last_line
from evaluation.runners.docker import ENGINE_ERRORS, reason

FULL = "no space left on device"


def build(image: str, source: Path, log: Path, arguments: Sequence[str] = ()) -> float:
    """Run `docker build -t <image> <arguments> .` in `source`; return its seconds.

    By the command: the SDK does not know BuildKit. log: receives what the build prints. Raises
    EvaluationError with its last line on failure.
    """
    start = time.perf_counter()
    command = ["docker", "build", "-t", image, *arguments, "."]
    try:
        with log.open("wb") as sink:
            done = subprocess.run(
                command,
                cwd=source,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                check=False,
            )
    except FileNotFoundError as error:
        if error.filename != command[0]:  # `source`, or the folder of the log
            raise
        raise EvaluationError(f"no docker command for {shlex.join(command)}") from error
    if done.returncode != 0:
        said = last_line(log.read_text(errors="replace"))
        raise EvaluationError(f"docker build failed: {said} (all of it: {log})")
    return time.perf_counter() - start


def load(client: docker.DockerClient, archive: Path) -> str:
    """Load a team's archive, made by `docker save`; return the image's name.

    Raises InputError when it cannot be loaded or has another name (see `name_in`),
    InfrastructureError when that is the engine's fault.
    """
    return name_in(archive, unpack(client, archive))


def team_of(archive: Path) -> str:
    """Return whose archive it is: its name up to the first dot, in lower case."""
    return archive.name.partition(".")[0].lower()


def unpack(client: docker.DockerClient, archive: Path) -> list[Image]:
    """Load whatever images an archive holds."""
    try:
        with archive.open("rb") as stream:
            return list(client.images.load(stream))
    except ENGINE_ERRORS as error:  # before OSError, which those of the connection are too
        said = f"{archive}: the engine cannot load it ({reason(error)})"
        if isinstance(error, requests.exceptions.RequestException) or FULL in said:
            raise InfrastructureError(said) from error
        raise InputError(said) from error
    except OSError as error:
        raise InfrastructureError(f"{archive}: cannot be read ({error.strerror})") from error


def name_in(archive: Path, images: Sequence[Image]) -> str:
    """Return the name of the image that the archive is named after, as the organisers call it.

    teamname.tar.gz holds teamname:latest; raises InputError when it does not.
    """
    expected = f"{team_of(archive)}:latest"
    names = sorted(tag for image in images for tag in image.tags)
    # Podman puts "localhost" in front, which is nobody's registry.
    found = [name for name in names if name in (expected, f"localhost/{expected}")]
    if not found:
        raise InputError(
            f"{archive}: holds {', '.join(names) or 'an image without a name'}, expected {expected}"
            f" like the archive: docker tag IMAGE {expected}, then docker save {expected}"
        )
    return str(found[0])
