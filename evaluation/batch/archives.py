"""The images of a machine's engine: which archives are loaded there, for whom, and for how long."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import docker

from evaluation.batch.inspection import inspect
from evaluation.batch.machine import Check, Machine, is_free, lock
from evaluation.gpu.devices import Gpu
from evaluation.results import write
from evaluation.runners import InfrastructureError, InputError, Limits, Runner, images
from evaluation.runners.docker import ENGINE_ERRORS, DockerRunner, connect, reap, reason

# Times the archive's size: the engine unpacks all of it before it unpacks its layers, and gzip
# makes about half of an image.
ROOM = 5


@dataclass
class Entry:
    """What is known of a team's archive on this machine; `remove`: names that loading it added."""

    archive: str  # path, size and date
    remove: list[str]
    image: str = ""  # its name, once it is loaded and found good
    image_id: str = ""
    refused: str = ""  # why it is not good


@contextlib.contextmanager
def runner(
    machine: Machine, archive: Path, limits: Limits, gpu: Gpu | None, image_mib: int, check: Check
) -> Iterator[Runner]:
    """Yield what runs an archive's image, which stays loaded while a worker of the machine uses it.

    image_mib: how large an image may be. The last worker to leave removes what loading added to
    the engine. Raises InputError for what is the team's fault, InfrastructureError for what is the
    machine's.
    """
    register = _Register(machine, images.team_of(archive))
    with contextlib.closing(connect()) as client, register.in_use(client, check):
        with register.changing(check):
            image = _loaded(client, register, archive, image_mib, check)
        yield DockerRunner(client, image, limits, gpu.uuid if gpu else None)


def reap_containers() -> None:
    """Remove the containers of workers that have ended; raises InfrastructureError."""
    with contextlib.closing(connect()) as client:
        reap(client)


def tidy(machine: Machine) -> None:
    """Remove the images that nobody uses any more; raises InfrastructureError."""
    with contextlib.closing(connect()) as client:
        for path in sorted((machine.folder / "images").glob("*.json")):
            _Register(machine, path.stem).leave(client)


class _Register:
    """One team's entry, and who uses it: a shared lock for each worker that does."""

    def __init__(self, machine: Machine, team: str) -> None:
        self.machine = machine
        self._path = machine.folder / "images" / f"{team}.json"
        self._users = self._path.with_suffix(".lock")

    def changing(self, check: Check = lambda: None) -> contextlib.AbstractContextManager[None]:
        """One worker of the machine at a time loads or removes images."""
        return lock(self.machine.folder / "images.lock", check)

    @contextlib.contextmanager
    def in_use(self, client: docker.DockerClient, check: Check) -> Iterator[None]:
        """Be one of the users; the last one cleans up."""
        try:
            with contextlib.ExitStack() as used:
                with self.changing(check):  # not while another one finds that it was the last
                    used.enter_context(lock(self._users, check, shared=True))
                yield
        finally:
            self.leave(client)

    def read(self) -> Entry | None:
        try:
            return Entry(**json.loads(self._path.read_text()))
        except FileNotFoundError:
            return None

    def save(self, entry: Entry) -> None:
        write(self._path, json.dumps(asdict(entry)))

    def leave(self, client: docker.DockerClient) -> None:
        """Remove what was loaded unless it is in use; a refusal is remembered while it is."""
        with self.changing():
            entry = self.read()
            if entry is None or not is_free(self._users):
                return
            with self.machine.undisturbing(lambda: None):
                for name in entry.remove:
                    with contextlib.suppress(*ENGINE_ERRORS):  # somebody else has removed it
                        client.images.remove(name, force=True)
            self._path.unlink()


def _loaded(
    client: docker.DockerClient, register: _Register, archive: Path, image_mib: int, check: Check
) -> str:
    """Return the name of an archive's image, loaded and inspected now or by another worker."""
    try:
        facts = archive.stat()
    except OSError as error:
        raise InfrastructureError(f"{archive}: cannot be read ({error.strerror})") from error
    identity = f"{archive.resolve()} {facts.st_size} {facts.st_mtime_ns} {image_mib}"
    entry = register.read()
    if entry is not None and entry.archive == identity:
        if entry.refused:
            raise InputError(entry.refused)
        if entry.image and entry.image_id == _ids(client).get(entry.image):
            return entry.image
    elif entry is not None:
        raise InfrastructureError(
            f"{archive}: {entry.archive.split()[0]} of the same name is in use on this machine"
        )
    with register.machine.undisturbing(check):
        entry = _load(client, register, archive, identity, image_mib)
    if entry.refused:
        raise InputError(entry.refused)
    return entry.image


def _load(
    client: docker.DockerClient, register: _Register, archive: Path, identity: str, image_mib: int
) -> Entry:
    _check_room(client, archive)
    before = _ids(client)
    expected = f"{images.team_of(archive)}:latest"
    # Before it is loaded: who is killed while loading leaves an image, too.
    entry = Entry(identity, [] if expected in before else [expected])
    register.save(entry)
    try:
        found = images.unpack(client, archive)
        names = [name for image in found for name in image.tags or [image.id]]
        entry.remove = [name for name in names if name not in before]
        register.save(entry)
        entry.image = images.name_in(archive, found)
        entry.image_id = inspect(client, archive, entry.image, image_mib)
    except InputError as error:
        entry.refused = str(error)
    register.save(entry)
    return entry


def _check_room(client: docker.DockerClient, archive: Path) -> None:
    """Raise InfrastructureError where the engine's disk, if it can be seen, has too little room."""
    try:
        root = Path(client.info().get("DockerRootDir") or "")
    except ENGINE_ERRORS as error:
        raise InfrastructureError(f"the engine does not answer: {reason(error)}") from error
    needed = ROOM * archive.stat().st_size
    if root.is_absolute() and root.is_dir() and (free := shutil.disk_usage(root).free) < needed:
        raise InfrastructureError(
            f"{root}: {free / 2**20:.0f} MiB are free, {needed / 2**20:.0f} needed to load"
            f" {archive.name}; make room"
        )


def _ids(client: docker.DockerClient) -> dict[str, str]:
    """Return the engine's images: the id of each name, and of each id itself."""
    try:
        found = client.images.list()
    except ENGINE_ERRORS as error:
        raise InfrastructureError(f"the engine does not answer: {reason(error)}") from error
    return {name: image.id for image in found for name in [*image.tags, image.id]}
