"""What an archive is found to hold before any engine has it; no engine is needed."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from evaluation.runners import InputError, contents, images
from evaluation.runners.contents import TooLarge, read
from evaluation.runners.tar import TarError, members

MIB = 2**20
TEAM = "team:latest"
Part = tuple[tarfile.TarInfo, bytes]


def part(name: str, content: bytes = b"", **facts: Any) -> Part:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, content


def tar(*parts: Part, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as out:
        for info, content in parts:
            out.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


LAYER = tar(part("etc/", type=tarfile.DIRTYPE), part("etc/a", bytes(5000)))
LAYER_BYTES = 4096 + 8192  # in blocks of a disk


def manifest(**facts: Any) -> bytes:
    image = {"Config": "c.json", "RepoTags": [TEAM], "Layers": ["l/layer.tar"]}
    return json.dumps([image | facts]).encode()


def saved(*more: Part, described: bytes | None = None, layer: bytes = LAYER) -> bytes:
    """An archive as docker save writes it, and what else it is to hold."""
    config = part("c.json", b'{"config": {"Labels": {"a": "1", "A": "2"}}}')
    told = part("manifest.json", described or manifest())
    return tar(part("l", type=tarfile.DIRTYPE), part("l/layer.tar", layer), config, *more, told)


def at(folder: Path, content: bytes) -> Path:
    path = folder / "team.tar.gz"
    path.write_bytes(content)
    return path


def test_names_and_room_are_those_of_all_images(tmp_path: Path) -> None:
    plain = saved()
    found = read(at(tmp_path, plain), MIB)
    assert (found.names, found.room_bytes) == (frozenset({TEAM}), len(plain) + LAYER_BYTES)
    assert read(at(tmp_path, gzip.compress(plain)), MIB) == found
    packed = saved(layer=gzip.compress(LAYER))
    assert read(at(tmp_path, packed), MIB).room_bytes == len(packed) + LAYER_BYTES
    linked = saved(
        part("m", type=tarfile.DIRTYPE),
        part("m/layer.tar", type=tarfile.SYMTYPE, linkname="../l/layer.tar"),
        described=manifest(Layers=["l/layer.tar", "m/layer.tar", "l/layer.tar"], RepoTags=None),
    )
    found = read(at(tmp_path, linked), MIB)
    assert (found.names, found.room_bytes) == (frozenset(), len(linked) + 3 * LAYER_BYTES)


def oci(**annotations: str) -> list[Part]:
    """What Docker adds since 25, for engines that go by it."""
    layers = [{"mediaType": "tar", "digest": "sha256:aa", "size": 1}] * 2
    index = {"schemaVersion": 2, "manifests": [{"digest": "sha256:bb", "annotations": annotations}]}
    return [
        part("blobs/sha256/aa", LAYER),
        part("blobs/sha256/bb", json.dumps({"schemaVersion": 2, "layers": layers}).encode()),
        part("index.json", json.dumps(index).encode()),
        part("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
    ]


def test_an_index_counts_as_well(tmp_path: Path) -> None:
    both = saved(*oci(**{contents.NAMES[0]: "docker.io/library/team:latest"}))
    found = read(at(tmp_path, both), MIB)
    assert found.names == {TEAM, "docker.io/library/team:latest"}
    assert found.room_bytes == len(both) + 2 * LAYER_BYTES


VICTIM = "debian:bookworm-slim"
REPOSITORIES = json.dumps({"debian": {"bookworm-slim": "aa"}}).encode()


@pytest.mark.parametrize(
    "content",
    [
        saved(described=manifest(RepoTags=[TEAM, VICTIM])),
        saved(described=manifest(RepoTags=["team:v1"])),
        saved(described=manifest()[:-1] + b", " + manifest(RepoTags=[VICTIM])[1:]),
        saved(part("repositories", REPOSITORIES)),
        saved(*oci(**{contents.NAMES[0]: VICTIM})),
        saved(*oci(**{contents.NAMES[1]: VICTIM})),
        # What engines take for another name than a careless reader.
        saved(described=manifest(repotags=[VICTIM])),
        saved(described=manifest(**{"RepoTag\u017f": [VICTIM]})),
        saved(described=manifest()[:-2] + b', "RepoTags": ["debian:bookworm-slim"]}]'),
        saved(part("./manifest.json", manifest(RepoTags=[VICTIM]))),
        saved(part("x", pax_headers={"path": "manifest.json"})),
        saved(part("here", type=tarfile.SYMTYPE, linkname="."), part("here/manifest.json")),
        saved(part("manifest.json", type=tarfile.SYMTYPE, linkname="other.json")),
        saved(part("here", type=tarfile.SYMTYPE, linkname="l"), part("here/layer.tar", LAYER)),
        saved(part("l/layer.tar", LAYER)),
        manifest(RepoTags=[VICTIM]),
    ],
)  # fmt: skip
def test_no_other_name_reaches_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    client = docker.DockerClient(base_url="unix:///nowhere/docker.sock", version="1.41")
    monkeypatch.setattr(client, "info", dict)
    archive = at(tmp_path, content)
    with pytest.raises(InputError) as caught:
        images.check(client, archive, 100)
    assert str(caught.value).startswith(f"{archive}: ")
    assert str(caught.value).removeprefix(str(archive)).isprintable()


def test_nothing_behind_the_end_counts(tmp_path: Path) -> None:
    """As for Python's tarfile, and Go's."""
    archive = at(tmp_path, saved() + saved(described=manifest(RepoTags=[VICTIM])))
    with tarfile.open(archive) as tar:
        assert tar.getnames().count("manifest.json") == 1
    assert read(archive, MIB).names == {TEAM}


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    at(tmp_path, saved()).rename(tmp_path / "there")
    archive = tmp_path / "team.tar.gz"
    makers: list[Callable[[], object]] = [
        lambda: archive.symlink_to("there"),
        lambda: archive.symlink_to("nowhere"),
        lambda: os.mkfifo(archive),
        lambda: archive.mkdir(),
    ]
    for make in makers:
        make()
        with pytest.raises(InputError, match="is not a regular file"):
            read(archive, MIB)
        archive.rmdir() if archive.is_dir() else archive.unlink()


def compressed(size: int, start: bytes = b"") -> bytes:
    """So many zeros behind a start."""
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb", 1) as file:
        file.write(start)
        for _ in range(size // MIB):
            file.write(bytes(MIB))
    return buffer.getvalue()


def header(name: str, size: int, **facts: Any) -> bytes:
    return part(name, size=size, **facts)[0].tobuf(tarfile.GNU_FORMAT)


def sparse(size: int) -> bytes:
    return tar(part("a", pax_headers={"GNU.sparse.size": str(size), "GNU.sparse.map": ""}))


GIB = 2**30
DIGESTS = {"Layers": [{"Digest": "sha256:aa"}] * 60_000}
BOMBS = {
    "the archive itself": compressed(GIB, header("x", 2**40)),
    "behind its end": compressed(GIB, saved()),
    "a layer": saved(layer=compressed(GIB, header("x", GIB))),
    "a sparse file": saved(layer=sparse(2**40)),
    "files without content": saved(layer=gzip.compress(header("x", 0) * 200_000)),
    "a layer many times": saved(described=manifest(Layers=["l/layer.tar"] * 50_000)),
    "a layer many times by the index": saved(
        *oci(), part("blobs/sha256/cc", json.dumps(DIGESTS).encode())
    ),
    "a long name": compressed(GIB, header("x", GIB, type=tarfile.GNUTYPE_LONGNAME)),
    "a long header": compressed(GIB, header("x", GIB, type=tarfile.XHDTYPE)),
    "a long manifest": tar(part("manifest.json", b"[" * 6 * MIB)),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_unpacks_to_much_is_refused_before_it_is_unpacked(tmp_path: Path, name: str) -> None:
    archive = at(tmp_path, BOMBS[name])
    assert archive.stat().st_size < 8 * MIB
    with pytest.raises(InputError) as caught:
        read(archive, 512 * MIB)
    refused_for_size = type(caught.value) is TooLarge
    assert refused_for_size != name.startswith("a long")
    assert f"{archive}: " in str(caught.value)


@pytest.mark.parametrize(
    "described",
    [
        *(b"", b"{}", b"[1]", b'[{"Layers": 3}]', b"[" * 100_000, b"[" * 3000 + b"]" * 3000),
        manifest(Layers=["nowhere"]),
        manifest(RepoTags="team:latest"),
        manifest(RepoTags=[3]),
        manifest().decode().encode("utf-16"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, described: bytes) -> None:
    archive = at(tmp_path, saved(described=described or b" "))
    with pytest.raises(InputError) as caught:
        read(archive, MIB)
    assert len(str(caught.value).removeprefix(str(archive))) < 350
    assert str(caught.value).isprintable()


def test_headers_are_read_as_pythons_tarfile_reads_them() -> None:
    numbers = random.Random(7)
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        parts = []
        for i in range(300):
            folder = "/".join("d" * numbers.randint(1, 30) for _ in range(numbers.randint(0, 4)))
            kind = numbers.choice(
                [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
            )
            content = bytes(numbers.randint(0, 1500)) if kind == tarfile.REGTYPE else b""
            long = "\u00e9" * numbers.randint(0, 120 if form != tarfile.USTAR_FORMAT else 0)
            parts.append(
                part(
                    f"{folder}/{i}{long}",
                    content,
                    type=kind,
                    linkname=f"to{long}" if kind in b"12" else "",
                )
            )
        content = tar(*parts, form=form)
        with tarfile.open(fileobj=io.BytesIO(content)) as expected:
            known = [(one.name.rstrip("/"), one.type, one.size, one.linkname) for one in expected]
        found = [
            (one.name.rstrip("/"), one.kind, one.size, one.link)
            for one, _ in members(io.BytesIO(content))
        ]
        assert found == known


def test_whatever_a_tar_is_made_of_it_is_read_or_refused_at_once() -> None:
    numbers = random.Random(11)
    whole = saved(part("a" * 300), part("b", pax_headers={"comment": "c"}), *oci())
    began_s = time.monotonic()
    for _ in range(1500):
        damaged = bytearray(whole)
        for _ in range(numbers.randint(1, 8)):
            damaged[numbers.randrange(len(damaged))] = numbers.choice(
                (0, 32, 48, 55, 120, 128, 255)
            )
        block = numbers.randrange(len(damaged) // 512) * 512
        header_of = damaged[block : block + 512]
        blank = header_of[:148] + b" " * 8 + header_of[156:]
        damaged[block + 148 : block + 156] = b"%06o\0 " % sum(blank)
        try:
            for _member, body in members(io.BytesIO(damaged)):
                body.peek()
        except TarError:
            pass
    assert time.monotonic() - began_s < 60
