"""Archives in real engines: loaded once, checked, and gone when the last worker leaves."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import tarfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from evaluation.batch import archives, inspection
from evaluation.batch.machine import Machine
from evaluation.batch.messages import Entrant
from evaluation.conditions import Conditions
from evaluation.runners import InfrastructureError, InputError, Runner, images
from evaluation.runners.docker import connect
from tests import engine
from tests.evaluation.batch import NOTHING
from tests.evaluation.challenges import CONDITIONS, FLARE24, GRAND_CHALLENGE

BASE = "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\nWORKDIR /workspace\n"
GOOD = f"{BASE}COPY Dockerfile predict.sh\n"


def patient() -> None:
    """Waits as long as need be."""


class Teams:
    """Archives of teams whose names no other image has."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.machine = folder, Machine(folder / "machine")
        self._names: list[str] = []

    def save(self, dockerfile: str, name: str | None = None, prefix: str = "") -> Path:
        """Build, save and remove an image; return its archive.

        name: the image's, if another than the archive's. prefix: in front of it.
        """
        team = f"flare-test-{uuid.uuid4().hex[:8]}"
        name = f"{prefix}{name or team}"
        self._names += [team, name]
        context = self.folder / team
        context.mkdir()
        (context / "Dockerfile").write_text(dockerfile)
        built = engine.build_image(context)
        engine.docker("tag", built.id, f"{name}:latest")
        engine.docker("save", "--output", context / "image.tar", f"{name}:latest")
        engine.remove_image(built)
        archive = self.folder / f"{team}.tar.gz"
        with (context / "image.tar").open("rb") as tar, gzip.open(archive, "wb", 1) as packed:
            shutil.copyfileobj(tar, packed)
        return archive

    def use(
        self, archive: Path, image_mib: int = 1024, conditions: Conditions = CONDITIONS
    ) -> contextlib.AbstractContextManager[Runner]:
        team = Entrant("team", archive, self.folder, conditions, image_mib, NOTHING)
        return archives.runner(self.machine, team, None, patient)

    def loaded(self) -> list[str]:
        """Those of the images that the engine has."""
        listed = engine.docker("images", "--format", "{{.Repository}}").stdout.split()
        return sorted({name for name in self._names if name in listed})

    def end(self) -> None:
        for name in self.loaded():
            engine.docker("rmi", "--force", f"{name}:latest")


@pytest.fixture(params=engine.ENGINES)
def teams(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Teams]:
    with engine.in_use(request.param):
        one = Teams(tmp_path)
        yield one
        one.end()


def test_an_image_is_there_while_a_worker_uses_it(teams: Teams) -> None:
    archive = teams.save(GOOD)
    with teams.use(archive) as first:
        with teams.use(archive) as second:
            assert first.describe()["image_digest"] == second.describe()["image_digest"]
        assert len(teams.loaded()) == 1
    assert teams.loaded() == []


def test_no_timed_run_waits_for_an_image_to_be_removed(teams: Teams) -> None:
    first, second = teams.save(GOOD), teams.save(GOOD)
    user = contextlib.ExitStack()
    user.enter_context(teams.use(first))
    leaving = threading.Thread(target=user.close)
    with teams.machine.timed(patient):
        leaving.start()
        leaving.join(20)
        left_beside_the_run = not leaving.is_alive()
        (left,) = teams.loaded()
    leaving.join()
    assert left_beside_the_run
    with teams.use(second):
        (loaded,) = teams.loaded()
        assert loaded != left
    assert teams.loaded() == []


def test_an_image_that_the_engine_had_before_is_left_there(teams: Teams) -> None:
    archive = teams.save(GOOD)
    with gzip.open(archive) as packed, (teams.folder / "again.tar").open("wb") as tar:
        shutil.copyfileobj(packed, tar)
    engine.docker("load", "--input", teams.folder / "again.tar")
    with teams.use(archive):
        pass
    assert len(teams.loaded()) == 1


@pytest.mark.parametrize(
    ("dockerfile", "why"),
    [
        (BASE, "no predict.sh in /workspace, the image's WORKDIR"),
        (f'{GOOD}ENTRYPOINT ["/bin/echo"]\n', r"its ENTRYPOINT \['/bin/echo'\] does not hand it"),
        (f"{GOOD}RUN rm /bin/bash\n", "it needs /bin/bash"),
        (f"{GOOD}RUN chmod a-x /bin/bash\n", "it needs /bin/bash"),
    ],
)
def test_what_cannot_be_run_as_the_organisers_do_is_refused(
    teams: Teams, dockerfile: str, why: str
) -> None:
    archive = teams.save(dockerfile)
    with pytest.raises(InputError, match=f"{archive}: .*{why}"), teams.use(archive):
        pass
    assert teams.loaded() == []


def test_an_entrypoint_that_hands_the_command_on_is_fine(teams: Teams) -> None:
    script = 'RUN printf "#!/bin/sh\\nexec \\"\\$@\\"\\n" > /entry && chmod +x /entry\n'
    archive = teams.save(f'{GOOD}{script}ENTRYPOINT ["/entry"]\n')
    with teams.use(archive):
        assert len(teams.loaded()) == 1


@pytest.mark.parametrize(
    ("dockerfile", "why"),
    [
        (f'{BASE}USER 1000\nENTRYPOINT ["/bin/echo"]\n', None),
        (f'{BASE}ENTRYPOINT ["/bin/echo"]\n', "runs as root"),
        (f"{BASE}USER 1000\nENTRYPOINT []\nCMD []\n", "has no entry point"),
    ],
)
def test_grand_challenges_contract_asks_for_other_things(
    teams: Teams, dockerfile: str, why: str | None
) -> None:
    """And what it has let in, FLARE's contract refuses all the same."""
    archive = teams.save(dockerfile)
    expected = (
        pytest.raises(InputError, match=f"{archive}: .*{why}") if why else contextlib.nullcontext()
    )
    with expected, teams.use(archive, conditions=GRAND_CHALLENGE) as runner:
        assert str(runner.describe()["image_digest"]).startswith("sha256:")
    with pytest.raises(InputError), teams.use(archive):
        pass


def test_an_entrypoint_that_never_ends_is_refused(
    teams: Teams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "PROBE_S", 1.0)
    archive = teams.save(f'{GOOD}ENTRYPOINT ["/bin/sh", "-c", "sleep 600"]\n')
    with pytest.raises(InputError, match="still running after 1 s"), teams.use(archive):
        pass


def test_another_name_is_refused_and_nothing_of_it_stays(teams: Teams) -> None:
    archive = teams.save(GOOD, name=f"flare-test-{uuid.uuid4().hex[:8]}")
    with pytest.raises(InputError, match="expected flare-test-"), teams.use(archive):
        pass
    assert teams.loaded() == []


def test_an_image_that_is_too_large_is_refused(teams: Teams) -> None:
    archive = teams.save(GOOD)
    with (
        pytest.raises(InputError, match="unpacks to more than 10 MiB, the most that is all"),
        teams.use(archive, 10),
    ):
        pass
    assert teams.loaded() == []


def test_an_image_for_another_processor_is_refused(teams: Teams) -> None:
    archive = teams.save(GOOD)
    with teams.use(archive) as runner:
        name = str(runner.describe()["image"])
        # No engine here builds for another one: what its answer would be is put in its place.
        client = connect()
        answer = client.version() | {"Arch": "s390x"}
        client.version = lambda: answer
        with pytest.raises(InputError, match=r"for linux/.*, this machine is linux/s390x; build"):
            inspection.inspect(client, archive, name, FLARE24.contract)
        client.close()


def test_what_does_not_fit_is_refused_unless_others_take_the_room(
    teams: Teams, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = teams.save(GOOD), teams.save(GOOD)
    with teams.use(first):
        monkeypatch.setattr(images, "_disk", lambda _: (Path("/engine"), 150.0))
        with pytest.raises(InfrastructureError, match="are free in /engine"), teams.use(second):
            pass
    with pytest.raises(InputError, match=r"are free in /engine, .* needed to load"):
        teams.use(second).__enter__()
    monkeypatch.setattr(images, "_disk", lambda _: (Path("/engine"), 60.0))
    with pytest.raises(InputError, match="unpacks to more than 60 MiB, which are free in /engine"):
        teams.use(first).__enter__()
    assert teams.loaded() == []


def test_an_engine_that_says_itself_that_its_disk_is_full_refuses(
    teams: Teams, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise images.NoRoom("no space left on device")

    archive = teams.save(GOOD)
    monkeypatch.setattr(images, "unpack", full)
    with pytest.raises(InputError, match="no space left on device"), teams.use(archive):
        pass


def test_what_is_no_archive_is_refused(teams: Teams) -> None:
    archive = teams.folder / "broken.tar.gz"
    archive.write_bytes(b"this is no tar")
    with pytest.raises(InputError, match="no tar, or a damaged one"), teams.use(archive):
        pass


def test_what_killed_workers_left_is_removed_when_somebody_tidies(teams: Teams) -> None:
    archive = teams.save(GOOD)
    use = teams.use(archive)
    use.__enter__()
    # Killed: nobody leaves, and the kernel gives the lock back.
    (entry,) = (teams.machine.folder / "images").glob("*.json")
    kept = entry.read_text()
    entry.unlink()
    use.__exit__(None, None, None)
    assert len(teams.loaded()) == 1
    entry.write_text(kept)
    archives.tidy(teams.machine)
    assert teams.loaded() == []
    assert not entry.exists()


def test_what_a_worker_was_loading_when_it_was_killed_is_known_by_name(
    teams: Teams, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(client: docker.DockerClient, archive: Path) -> None:
        unpack(client, archive)
        assert len(teams.loaded()) == 1
        raise Killed

    archive, unpack = teams.save(GOOD, prefix="localhost/"), images.unpack
    monkeypatch.setattr(images, "unpack", kill)
    with pytest.raises(Killed), teams.use(archive):
        pass
    assert teams.loaded() == []


def test_what_a_killed_worker_has_loaded_in_part_is_removed_by_the_next(teams: Teams) -> None:
    archive = teams.save(GOOD)
    with teams.use(archive):
        (note,) = (teams.machine.folder / "images").glob("*.json")
        kept = json.loads(note.read_text())
        # As it was before the load had ended.
        note.write_text(json.dumps({"team": kept["team"], "remove": kept["remove"]}))
        with teams.use(archive):
            pass
    assert teams.loaded() == []


def test_a_name_that_is_anothers_is_not_touched(teams: Teams) -> None:
    """Not by loading the archive, and not by clearing up after it."""
    archive = teams.save(GOOD)
    victim, other = teams.save(GOOD), teams.folder / "foreign" / archive.name
    other.parent.mkdir()
    name = images.team_of(victim)
    with teams.use(victim) as runner:
        before = runner.describe()["image_digest"]
        with tarfile.open(archive) as tar, tarfile.open(other, "w:gz", compresslevel=1) as foreign:
            rename(tar, foreign, [f"{images.team_of(archive)}:latest", f"{name}:latest"])
        with pytest.raises(InputError, match=f"holds .*{name}:latest.*and nothing else"):
            teams.use(other).__enter__()
        assert engine.docker("inspect", "--format", "{{.Id}}", name).stdout.strip() == before
        assert teams.loaded() == [name]


def rename(tar: tarfile.TarFile, to: tarfile.TarFile, names: list[str]) -> None:
    """Write a saved image with other names."""
    for member in tar:
        content = tar.extractfile(member) if member.isfile() else None
        if member.name == "manifest.json" and content is not None:
            manifest = json.load(content)
            manifest[0]["RepoTags"] = names
            text = json.dumps(manifest).encode()
            member.size, content = len(text), io.BytesIO(text)
        to.addfile(member, content)
