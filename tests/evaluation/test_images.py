"""Images that are built, and archives of images as teams hand them in."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests

from evaluation.errors import EvaluationError
from evaluation.runners import InfrastructureError, InputError, contents, images
from evaluation.runners.docker import connect
from tests import engine
from tests.frozen import FreezableEngine
from tests.submissions import BEHAVIOURS, write_cases, write_submission

ARGUMENTS = shlex.split(os.environ.get("IMAGE_BUILD_ARGS", ""))
# Whatever a build runs leaves no container behind, and needs no network.
CLEAN = ["--force-rm", "--network", "none", *ARGUMENTS]
BASE = "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\n"


@pytest.fixture(params=engine.ENGINES)
def engine_of_a_cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Docker, and Podman."""
    with engine.in_use(request.param):
        yield


@pytest.fixture
def name() -> Iterator[str]:
    """A name for an image; what has it at the end is removed."""
    chosen = f"flare-test-{uuid.uuid4().hex[:8]}"
    yield chosen
    found = engine.docker("images", "--quiet", "--no-trunc", chosen).stdout.split()
    for image_id in set(found):
        engine.remove_image(engine.Image(chosen, image_id))


@pytest.fixture
def client() -> Iterator[docker.DockerClient]:
    connected = connect()
    yield connected
    connected.close()


def context(folder: Path, dockerfile: str) -> Path:
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    return folder


@pytest.mark.engine
def test_a_folder_is_built_and_its_log_kept(tmp_path: Path, name: str) -> None:
    source = context(tmp_path / "source", f"{BASE}RUN echo a word > /said\n")
    log = tmp_path / "build.log"
    log.write_text("of an earlier build\n")
    seconds = images.build(name, source, log, [*CLEAN, "--label", "flare-test=handed on"])
    assert 0 < seconds < 300
    assert "RUN echo a word > /said" in log.read_text()
    assert "earlier" not in log.read_text()
    said = engine.docker("run", "--rm", "--network", "none", name, "cat", "/said")
    assert said.stdout == "a word\n"
    label = engine.docker("inspect", "--format", '{{index .Config.Labels "flare-test"}}', name)
    assert label.stdout == "handed on\n"


@pytest.mark.engine
def test_a_build_that_fails_says_its_last_line_and_where_the_others_are(
    tmp_path: Path, name: str
) -> None:
    source = context(tmp_path / "source", f"{BASE}RUN echo no weights; exit 3\n")
    log = tmp_path / "build.log"
    with pytest.raises(EvaluationError) as caught:
        images.build(name, source, log, CLEAN)
    message = str(caught.value)
    assert message.startswith("docker build failed: ")
    assert message.endswith(f" (all of it: {log})")
    assert "exit 3" in message
    assert "\n" not in message
    assert "no weights" in log.read_text()


def test_without_the_docker_command_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EvaluationError, match=r"no docker command for docker build -t x --pull \."):
        images.build("x", tmp_path, tmp_path / "log", ["--pull"])


@pytest.mark.parametrize("missing", ["source", "log"])
def test_another_thing_that_is_missing_is_not_taken_for_the_docker_command(
    tmp_path: Path, missing: str
) -> None:
    source, log = tmp_path / "source", tmp_path / "logs" / "build.log"
    (log.parent if missing == "source" else source).mkdir()
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/{missing}"):
        images.build("x", source, log)


class Saved:
    """An image that was saved and is no longer in the engine."""

    def __init__(self, folder: Path, name: str) -> None:
        dockerfile = f"FROM scratch\nCOPY Dockerfile /{name}\n"
        built = engine.build_image(context(folder / "saved", dockerfile))
        self.id = built.id
        self.tar = folder / "image.tar"
        engine.docker("tag", built.id, f"{name}:latest")
        engine.docker("save", "--output", self.tar, f"{name}:latest")
        self.without_name = folder / "without-name.tar"
        engine.docker("save", "--output", self.without_name, built.id)
        engine.remove_image(built)


@pytest.fixture
def saved(tmp_path: Path, name: str) -> Iterator[Saved]:
    made = Saved(tmp_path, name)
    yield made
    engine.docker("rmi", "--force", made.id, check=False)  # what a test has loaded of it


def compressed(source: Path, to: Path) -> Path:
    with source.open("rb") as plain, gzip.open(to, "wb", compresslevel=1) as sink:
        shutil.copyfileobj(plain, sink)
    return to


@pytest.mark.usefixtures("engine_of_a_cluster")
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
def test_an_archive_is_loaded(
    client: docker.DockerClient, tmp_path: Path, name: str, saved: Saved, suffix: str
) -> None:
    assert not client.images.list(name)
    archive = tmp_path / f"{name.capitalize()}.{suffix}"  # the organisers' names are in lower case
    if suffix == "tar":
        shutil.copyfile(saved.tar, archive)
    else:
        compressed(saved.tar, archive)
    loaded, added = images.load(client, archive)
    assert added == [loaded]
    assert loaded in images.names_of(name)
    assert client.images.get(loaded).id == saved.id


@pytest.mark.engine
def test_an_archive_that_is_not_named_like_its_image_is_told_how_to_be(
    client: docker.DockerClient, tmp_path: Path, name: str, saved: Saved
) -> None:
    archive = compressed(saved.tar, tmp_path / "team7.tar.gz")
    with pytest.raises(EvaluationError) as caught:
        images.load(client, archive)
    message = str(caught.value)
    assert message.startswith(f"{archive}: holds ")
    assert f"{name}:latest, expected team7:latest like the archive" in message
    assert message.endswith("docker tag IMAGE team7:latest, then docker save team7:latest")


@pytest.mark.engine
def test_an_image_that_was_saved_without_its_name_is_too(
    client: docker.DockerClient, saved: Saved
) -> None:
    message = "holds an image without a name, expected without-name:latest"
    with pytest.raises(EvaluationError, match=message):
        images.load(client, saved.without_name)


@pytest.mark.usefixtures("engine_of_a_cluster")
@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no archive")],
    ids=["empty", "no archive", "no archive within gzip"],
)
def test_what_is_no_archive_is_one_line(
    client: docker.DockerClient, tmp_path: Path, content: bytes
) -> None:
    archive = tmp_path / "team.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(InputError) as caught:
        images.load(client, archive)
    assert str(caught.value).startswith(f"{archive}: ")
    assert str(caught.value).endswith("; save it with docker save")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("engine_of_a_cluster")
def test_a_damaged_archive_is_told_from_an_engine_that_fails(
    client: docker.DockerClient, tmp_path: Path, name: str, saved: Saved
) -> None:
    archive = compressed(saved.tar, tmp_path / f"{name}.tar.gz")
    whole = archive.read_bytes()
    middle = len(whole) // 2
    damages = (
        whole[:middle],
        whole[:middle] + bytes(64) + whole[middle + 64 :],
        whole[:-8] + bytes(8),
    )
    for damaged in damages:
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match=f"{archive}: damaged gzip .*; save it again"):
            images.load(client, archive)
        assert not client.images.list(name)


@pytest.mark.engine
def test_a_disk_that_fails_in_the_midst_of_it_is_not_the_connections_fault(
    client: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(contents, "opened", lambda _: Failing())
    archive = tmp_path / "team.tar.gz"
    archive.touch()
    with pytest.raises(InfrastructureError) as caught:
        images.load(client, archive)
    assert str(caught.value) == f"{archive}: cannot be read (Input/output error)"


@pytest.mark.usefixtures("engine_of_a_cluster")
def test_an_engine_may_be_silent_as_long_as_the_archive_is_large(
    tmp_path: Path, name: str, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = compressed(saved.tar, tmp_path / f"{name}.tar.gz")
    with FreezableEngine(tmp_path / "engine.sock") as frozen:
        client = docker.DockerClient(base_url=frozen.host, timeout=1)
        frozen.freeze()
        with pytest.raises(InfrastructureError, match=f"{archive}: the engine cannot load it"):
            images.unpack(client, archive)
        monkeypatch.setattr(images, "SLOWEST_BYTES_S", archive.stat().st_size / 30)
        threading.Timer(3, frozen.thaw).start()
        (image,) = images.unpack(client, archive)
        assert image.id == saved.id
        assert client.api.timeout == 1
        client.close()


def podman_says(cause: str) -> docker.errors.APIError:
    """Whatever fails, Podman calls it a format that it does not know."""
    said = f"payload does not match any of the supported image formats: {'x' * 500} {cause}"
    return docker.errors.APIError("500 Server Error", explanation=said)


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        # An OSError as well, like that of an archive.
        (
            requests.exceptions.ConnectionError("reset by peer"),
            InfrastructureError,
            "reset by peer",
        ),
        (podman_says("unexpected EOF"), InputError, "payload does not match"),
        (podman_says("no space left on device"), images.NoRoom, "payload does not match"),
    ],
)
def test_whose_fault_it_is_that_an_archive_cannot_be_loaded(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    kind: type[EvaluationError],
    said: str,
) -> None:
    def failed(*_: object) -> None:
        raise raised

    client = docker.DockerClient(base_url="unix:///nowhere/docker.sock", version="1.41")
    monkeypatch.setattr(type(client.images), "load", failed)
    archive = tmp_path / "team.tar.gz"
    archive.touch()
    with pytest.raises(
        EvaluationError, match=rf"{archive}: the engine cannot load it \({said}"
    ) as e:
        images.unpack(client, archive)
    assert type(e.value) is kind
    archive.unlink()
    with pytest.raises(InfrastructureError, match=r"cannot be read \(No such file or directory\)"):
        images.unpack(client, archive)


@pytest.mark.usefixtures("engine_of_a_cluster")
def test_a_teams_archive_is_evaluated(tmp_path: Path, name: str) -> None:
    source = write_submission(tmp_path / "submission", {"good": BEHAVIOURS["good"]})
    images.build(name, source, tmp_path / "log", CLEAN)
    engine.docker("save", "--output", tmp_path / "plain.tar", f"{name}:latest")
    (image_id,) = engine.docker("images", "--quiet", "--no-trunc", name).stdout.split()
    engine.remove_image(engine.Image(name, image_id))
    archive = compressed(tmp_path / "plain.tar", tmp_path / f"{name}.tar.gz")
    scans, labels = write_cases(tmp_path, ["good_1", "good_2"])
    submission = ["run", "--archive", archive, "--gpu", "none"]
    data = ["--cases", scans, "--labels", labels, "--output", tmp_path / "results"]
    done = subprocess.run(
        [sys.executable, "-m", "evaluation", *map(str, [*submission, *data])],
        cwd=engine.ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with (tmp_path / "results" / "results.csv").open() as file:
        found = {row["case"]: (row["status"], row["dsc"]) for row in csv.DictReader(file)}
    assert found == {"good_1": ("ok", "1.0"), "good_2": ("ok", "1.0")}
    record = json.loads((tmp_path / "results" / "cases" / "good_1.json").read_text())
    assert record["environment"]["image"] in images.names_of(name)
    assert record["environment"]["image_digest"] == image_id
    assert re.search(r"good_2 +ok ", done.stdout)


@pytest.mark.engine
def test_an_odd_name_is_no_image_and_removes_nothing(client: docker.DockerClient) -> None:
    images.remove(client, ["team blau (final):latest", "flare-test-absent:latest"])
