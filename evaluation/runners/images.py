"""Images of an engine: build one from a submission's folder, load one from a team's archive."""

import contextlib
import gzip
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import docker
import requests
from docker.models.images import Image
from isal import igzip_threaded

from evaluation.errors import EvaluationError
from evaluation.runners import InfrastructureError, InputError, last_line
from evaluation.runners.engine_errors import ENGINE_ERRORS, reason
from volumes.streams import BAD_DATA

FULL = "no space left on device"
NO_ARCHIVE = "payload does not match any of the supported image formats"
GZIP = b"\x1f\x8b"  # how its files begin
BLOCK_BYTES = 2**20
SLOWEST_BYTES_S = 5 * 2**20  # of an archive


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


def names_of(team: str) -> list[str]:
    """Return how a team's image may be called; Podman puts something in front of its name."""
    return [f"{prefix}{team}:latest" for prefix in ("", "localhost/", "docker.io/library/")]


def unpack(client: docker.DockerClient, archive: Path) -> list[Image]:
    """Load whatever images an archive holds."""
    try:
        with _patient(client, archive), _opened(archive) as tar:
            return list(client.images.load(_blocks(archive, tar)))
    except ENGINE_ERRORS as error:  # before OSError, which those of the connection are too
        said = f"{archive}: the engine cannot load it ({reason(error)})"
        # Docker says in its answer what is wrong with an archive; Podman fails with these words.
        is_answer = not isinstance(error, requests.exceptions.RequestException)
        if (is_answer or NO_ARCHIVE in str(error)) and FULL not in str(error):
            raise InputError(said) from error
        raise InfrastructureError(said) from error
    except OSError as error:
        raise InfrastructureError(f"{archive}: cannot be read ({error.strerror})") from error


def name_in(archive: Path, images: Sequence[Image]) -> str:
    """Return the name of the image that the archive is named after, as the organisers call it.

    teamname.tar.gz holds teamname:latest; raises InputError when it does not.
    """
    expected = names_of(team_of(archive))
    names = sorted(tag for image in images for tag in image.tags)
    found = [name for name in names if name in expected]
    if not found:
        raise InputError(
            f"{archive}: holds {', '.join(names) or 'an image without a name'}, expected"
            f" {expected[0]} like the archive: docker tag IMAGE {expected[0]}, then docker save"
            f" {expected[0]}"
        )
    return str(found[0])


@contextlib.contextmanager
def _patient(client: docker.DockerClient, archive: Path) -> Iterator[None]:
    """Let the engine be silent for as long as a slow one needs: Podman is, until all is loaded."""
    usual_s = client.api.timeout
    client.api.timeout = usual_s + archive.stat().st_size / SLOWEST_BYTES_S
    try:
        yield
    finally:
        client.api.timeout = usual_s


def _opened(archive: Path) -> BinaryIO:
    """Open an archive, what gzip has made of it undone beside the engine's work.

    An engine would do that itself, on one core, and be slow.
    """
    with archive.open("rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
    opened = igzip_threaded.open(archive) if is_packed else archive.open("rb")
    return cast(BinaryIO, opened)


def _blocks(archive: Path, tar: BinaryIO) -> Iterator[bytes]:
    try:
        while block := tar.read(BLOCK_BYTES):
            yield block
    except (EOFError, gzip.BadGzipFile, BAD_DATA) as error:
        raise InputError(f"{archive}: damaged gzip ({error}); save it again") from error
    except OSError as error:  # here, for there it would be one of the connection
        raise InfrastructureError(f"{archive}: cannot be read ({error.strerror})") from error
