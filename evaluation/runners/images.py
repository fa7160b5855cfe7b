"""Images of an engine: build one from a submission's folder, load one from a team's archive."""

import contextlib
import gzip
import math
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import docker
import requests
from docker.models.images import Image

from evaluation.disk import check_disk
from evaluation.errors import EvaluationError
from evaluation.runners import InfrastructureError, InputError, contents, last_line, short_line
from evaluation.runners.engine_errors import ENGINE_ERRORS, engine_errors, reason
from volumes.streams import BAD_DATA

FULL = "no space left on device"
NO_ARCHIVE = "payload does not match any of the supported image formats"
TAG = "latest"  # as Docker writes it beside the name that it is the tag of
BLOCK_BYTES = 2**20
SLOWEST_BYTES_S = 5 * 2**20  # of an archive


class NoRoom(InfrastructureError):
    """The engine's disk cannot hold an image."""


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


def load(client: docker.DockerClient, archive: Path) -> tuple[str, list[str]]:
    """Load a team's archive, made by `docker save`; return the image's name, and what was added.

    Raises InputError when it cannot be loaded or has another name (see `check`),
    InfrastructureError when that is the engine's fault.
    """
    check(client, archive, math.inf)
    before = ids(client)
    found = unpack(client, archive)
    return name_in(archive, found), added(found, before)


def check(client: docker.DockerClient, archive: Path, image_mib: float) -> None:
    """Look through an archive before the engine has any of it.

    Raises InputError for what `contents.read` refuses, for any name but the archive's own, as the
    organisers call it (teamname.tar.gz holds teamname:latest), and for more than `image_mib`;
    NoRoom when the engine's disk, if it can be seen, has less than it takes.
    """
    root, free_mib = _disk(client)
    try:
        found = contents.read(archive, min(image_mib, free_mib) * 2**20)
    except contents.TooLarge as error:
        if image_mib <= free_mib:
            raise InputError(f"{error}, the most that is allowed") from error
        raise NoRoom(f"{error}, which are free in {root}; make room") from error
    expected = names_of(team_of(archive))
    others = found.names - {*expected, TAG}
    if others or not found.names & {*expected}:
        names = short_line(", ".join(sorted(found.names))) or "an image without a name"
        raise InputError(
            f"{archive}: holds {names}, expected {expected[0]} like the archive, and nothing else:"
            f" docker tag IMAGE {expected[0]}, then docker save {expected[0]}"
        )
    needed_mib = found.room_bytes / 2**20
    if needed_mib > free_mib:
        raise NoRoom(
            f"{archive}: {free_mib:.0f} MiB are free in {root}, {needed_mib:.0f} needed to load it;"
            " make room"
        )


def ids(client: docker.DockerClient) -> dict[str, str]:
    """Return the engine's images: the id of each name, and of each id itself."""
    with engine_errors("the engine's images"):
        found = client.images.list()
    return {name: image.id for image in found for name in [*image.tags, image.id]}


def added(found: Sequence[Image], before: Mapping[str, str]) -> list[str]:
    """Return the names of loaded images that the engine did not have before, nor what they name."""
    new = [image for image in found if image.id not in before]
    return [name for image in new for name in image.tags or [image.id] if name not in before]


def remove(client: docker.DockerClient, names: Sequence[str]) -> None:
    """Remove images, as far as they are there, or can be: an odd name is no image's."""
    for name in names:
        with engine_errors("the engine's images"):
            try:
                client.images.remove(name, force=True)
            except docker.errors.APIError as error:
                if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST):
                    raise


def team_of(archive: Path) -> str:
    """Return whose archive it is: its name up to the first dot, in lower case."""
    return archive.name.partition(".")[0].lower()


def names_of(team: str) -> list[str]:
    """Return how a team's image may be called; Podman puts something in front of its name."""
    return [f"{prefix}{team}:latest" for prefix in ("", "localhost/", "docker.io/library/")]


def unpack(client: docker.DockerClient, archive: Path) -> list[Image]:
    """Load whatever images an archive holds."""
    try:
        with _patient(client, archive), contents.opened(archive) as tar:
            return list(client.images.load(_blocks(archive, tar)))
    except ENGINE_ERRORS as error:  # before OSError, which those of the connection are too
        said = f"{archive}: the engine cannot load it ({reason(error)})"
        # Docker says in its answer what is wrong with an archive; Podman fails with these words.
        is_answer = not isinstance(error, requests.exceptions.RequestException)
        if FULL in str(error):
            raise NoRoom(said) from error
        if is_answer or NO_ARCHIVE in str(error):
            raise InputError(said) from error
        raise InfrastructureError(said) from error
    except OSError as error:
        raise InfrastructureError(f"{archive}: cannot be read ({error.strerror})") from error


def name_in(archive: Path, images: Sequence[Image]) -> str:
    """Return what the engine calls the image that the archive is named after.

    Raises InputError when it does not say.
    """
    expected = names_of(team_of(archive))
    names = (str(tag) for image in images for tag in image.tags if tag in expected)
    if name := next(names, None):
        return name
    raise InputError(f"{archive}: the engine has not loaded {expected[0]}; save it again")


@contextlib.contextmanager
def _patient(client: docker.DockerClient, archive: Path) -> Iterator[None]:
    """Let the engine be silent for as long as a slow one needs: Podman is, until all is loaded."""
    usual_s = client.api.timeout
    client.api.timeout = usual_s + archive.stat().st_size / SLOWEST_BYTES_S
    try:
        yield
    finally:
        client.api.timeout = usual_s


def _disk(client: docker.DockerClient) -> tuple[Path, float]:
    """Return where the engine keeps images, and the MiB that are free there, if it can be seen.

    Raises InfrastructureError when too few are for any image.
    """
    with engine_errors("the engine does not say where its images are"):
        root = Path(client.info().get("DockerRootDir") or "")
    if not (root.is_absolute() and root.is_dir()):
        return root, math.inf
    check_disk(root)
    return root, shutil.disk_usage(root).free / 2**20


def _blocks(archive: Path, tar: BinaryIO) -> Iterator[bytes]:
    try:
        while block := tar.read(BLOCK_BYTES):
            yield block
    except (EOFError, gzip.BadGzipFile, BAD_DATA) as error:
        raise InputError(f"{archive}: damaged gzip ({error}); save it again") from error
    except OSError as error:  # here, for there it would be one of the connection
        raise InfrastructureError(f"{archive}: cannot be read ({error.strerror})") from error
