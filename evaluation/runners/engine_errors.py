"""What an engine says when it fails, and whose fault that is: the image's, or its own.

An engine calls most of what an image can have wrong (a USER that does not exist, a WORKDIR that is
a file, a VOLUME over /proc, links in a circle) its own failure. So it is tried: where a container
of an empty image starts with the same options, engine, machine and options are sound.
"""

import contextlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import docker
import requests
from docker.models.containers import Container

from evaluation.runners import InfrastructureError, InputError, short_line

ENGINE_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)
# A command that cannot be executed, or that the image does not have: Docker gives the exit code,
# Podman says it.
NOT_FOUND = {
    126: "OCI permission denied",
    127: "OCI runtime attempted to invoke a command that was not found",
}
REFUSED = 125  # as `docker run` ends where the engine starts nothing

Result = TypeVar("Result")


class Unstarted(Exception):
    """A container was not made, or not started; the text is why.

    code: what `docker run` would end with. is_asked_too_much: the engine blames what was asked for.
    """

    def __init__(self, error: docker.errors.APIError, code: int = REFUSED) -> None:
        super().__init__(reason(error))
        self.code, self.is_asked_too_much = code, error.is_client_error()


def create(
    client: docker.DockerClient, image_id: str, command: list[str] | None, options: dict[str, Any]
) -> Container:
    """Make a container; raises Unstarted."""
    # The proxy of Docker's own command, perhaps with a password, is none of a stranger's business.
    options = options | {"use_config_proxy": False}
    try:
        return client.containers.create(image_id, command, **options)
    except docker.errors.ImageNotFound:
        raise
    except docker.errors.APIError as error:
        raise Unstarted(error) from error


def start(container: Container) -> None:
    """Start a container; raises Unstarted."""
    try:
        container.start()
    except docker.errors.APIError as error:
        container.reload()
        given, text = container.attrs["State"]["ExitCode"], str(error)
        codes = (code for code, said in NOT_FOUND.items() if given == code or said in text)
        raise Unstarted(error, next(codes, REFUSED)) from error


def attempted(
    attempt: Callable[[], Result], client: docker.DockerClient, options: dict[str, Any]
) -> Result:
    """Return what an attempt at a container of these options comes to.

    Raises Unstarted where that is the image's fault, InfrastructureError where it is the engine's,
    InputError where no image could be started so.
    """
    try:
        return attempt()
    except Unstarted as unstarted:
        if not _starts_another(client, options):
            kind = InputError if unstarted.is_asked_too_much else InfrastructureError
            raise kind(f"the engine does not start the container: {unstarted}") from unstarted
    return attempt()  # it may have been sound again by then


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Make InfrastructureError, which begins with `what`, of the engine's."""
    try:
        yield
    except ENGINE_ERRORS as error:
        raise InfrastructureError(f"{what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return what the engine, or the connection to it, said, as one line."""
    text = error.explanation if isinstance(error, docker.errors.APIError) else str(error)
    return short_line(str(text))


def _starts_another(client: docker.DockerClient, options: dict[str, Any]) -> bool:
    """Say whether a container of an empty image starts with these options."""
    with _empty_image(client) as image_id:
        try:
            # The engine's own init starts, and then finds no command.
            container = create(client, image_id, ["none"], options | {"init": True})
        except Unstarted:
            return False
        try:
            start(container)
            container.wait()
        except Unstarted:
            return False
        finally:
            container.remove(force=True, v=True)
    return True


@contextlib.contextmanager
def _empty_image(client: docker.DockerClient) -> Iterator[str]:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        folder = tarfile.TarInfo(
            "etc"
        )  # where GPUs are handed in, their libraries are listed there
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    said = client.api.import_image_from_data(layer.getvalue())
    image_id = str(json.loads(said.splitlines()[-1])["status"])
    try:
        yield image_id
    finally:
        client.images.remove(image_id, force=True)
