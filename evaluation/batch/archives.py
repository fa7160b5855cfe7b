"""The images of a machine's engine: which archives are loaded there, for whom, and for how long."""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
from msgspec import Struct

from evaluation import json_file
from evaluation.batch.inspection import inspect
from evaluation.batch.machine import Machine
from evaluation.batch.messages import Entrant
from evaluation.contracts import Contract
from evaluation.gpu.devices import Gpu
from evaluation.runners import InfrastructureError, InputError, Runner, images
from evaluation.runners.docker import DockerRunner, connect, reap
from evaluation.scratch import Check, is_free, lock


class LoadedArchive(Struct, forbid_unknown_fields=True):
    """What is known of an archive on this machine; `remove`: image names that loading it added."""

    team: str
    remove: list[str]
    image: str = ""  # its name, once it is loaded and found good
    image_id: str = ""
    refused: str = ""  # why it is not good


@contextlib.contextmanager
def runner(machine: Machine, team: Entrant, gpu: Gpu | None, check: Check) -> Iterator[Runner]:
    """Yield what runs a team's image, which stays loaded while a worker of the machine uses it.

    What loading added to the engine is removed when no worker uses it and nothing is timed here,
    before the next load at the latest. Raises InputError for what is the team's fault,
    InfrastructureError for what is the machine's.
    """
    contract = team.conditions.challenge.contract
    with contextlib.closing(connect()) as client:
        loaded = _Archives(machine, client)
        with loaded.used(team.archive, team.image_mib, contract, check) as image:
            uuid = gpu.uuid if gpu else None
            yield DockerRunner(client, image, team.conditions.limits, uuid, contract)


def reap_containers() -> None:
    """Remove the containers of workers that have ended; raises InfrastructureError."""
    with contextlib.closing(connect()) as client:
        reap(client)


def tidy(machine: Machine) -> None:
    """Remove the images that no worker uses any more; raises InfrastructureError."""
    with contextlib.closing(connect()) as client:
        _Archives(machine, client).tidy()


class _NotNow(Exception):
    """Something is timed on this machine, and would have to wait."""


class _Archives:
    """What workers of this machine have loaded: a file for each archive, and a lock for its users.

    A user shares that lock; to change files or images there is one lock for all.
    """

    def __init__(self, machine: Machine, client: docker.DockerClient) -> None:
        self.machine, self.client = machine, client
        self.folder = machine.folder / "images"

    @contextlib.contextmanager
    def used(
        self, archive: Path, image_mib: int, contract: Contract, check: Check
    ) -> Iterator[str]:
        """Yield the name of an archive's image; see `runner`."""
        try:
            facts = archive.lstat()
        except OSError as error:
            raise InfrastructureError(f"{archive}: cannot be read ({error.strerror})") from error
        identity = f"{archive} {facts.st_size} {facts.st_mtime_ns} {image_mib} {contract}"
        path = self.folder / f"{hashlib.sha256(os.fsencode(identity)).hexdigest()[:16]}.json"
        try:
            with lock(_users(path), check, shared=True):
                with self._changing(check):
                    entry = _read(path)
                    if entry is None or not (entry.refused or self._has(entry)):
                        with self.machine.undisturbing(check):
                            entry = self._load(path, archive, image_mib, contract)
                if entry.refused:
                    raise InputError(entry.refused)
                yield entry.image
        finally:
            # What is not removed now will be with the next load, or by `tidy`.
            with contextlib.suppress(InfrastructureError, _NotNow):
                self.tidy(self._not_beside_a_run)

    def tidy(self, check: Check = lambda: None) -> None:
        """Remove what no worker uses."""
        with self._changing():
            unused = [path for path in self.folder.glob("*.json") if is_free(_users(path))]
            if unused:
                with self.machine.undisturbing(check):
                    self._remove(unused)

    def _not_beside_a_run(self) -> None:
        if self.machine.is_timing:
            raise _NotNow

    def _changing(self, check: Check = lambda: None) -> contextlib.AbstractContextManager[None]:
        return lock(self.machine.folder / "images.lock", check)

    def _load(self, path: Path, archive: Path, image_mib: int, contract: Contract) -> LoadedArchive:
        team = images.team_of(archive)
        others = [other for other in sorted(self.folder.glob("*.json")) if other != path]
        # And what a worker has left that was killed while it was loading this one.
        self._remove([path, *(other for other in others if is_free(_users(other)))])
        used = [entry for other in others if (entry := _read(other))]
        if any(entry.team == team for entry in used):
            raise InfrastructureError(f"{archive}: another archive of that name is in use here")
        before = images.ids(self.client)
        # Before it is loaded: who is killed while loading leaves an image, too.
        expected = images.names_of(team)
        entry = LoadedArchive(team, [] if before.keys() & expected else expected)
        json_file.write(path, entry)
        try:
            images.check(self.client, archive, image_mib)
            found = images.unpack(self.client, archive)
            entry.remove = images.added(found, before)
            json_file.write(path, entry)
            entry.image = images.name_in(archive, found)
            entry.image_id = inspect(self.client, archive, entry.image, contract)
        except InputError as error:
            entry.refused = str(error)
        except images.NoRoom as error:
            if used:  # whose images may leave
                raise
            entry.refused = str(error)
        json_file.write(path, entry)
        return entry

    def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            entry = _read(path)
            images.remove(self.client, entry.remove if entry else ())
            path.unlink(missing_ok=True)

    def _has(self, entry: LoadedArchive) -> bool:
        return bool(entry.image) and images.ids(self.client).get(entry.image) == entry.image_id


def _users(path: Path) -> Path:
    return path.with_suffix(".lock")


def _read(path: Path) -> LoadedArchive | None:
    return json_file.read(path, LoadedArchive, "a note of a loaded archive", "remove it")
