"""What an archive of images holds, found out before any engine has it: names, and room.

An engine sets whatever name an archive's manifest gives, other teams' as well, and unpacks all of
it. So one that an engine could take for another than it is here is refused.
"""

import gzip
import json
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import msgspec
from isal import igzip, igzip_threaded
from msgspec import Struct

from evaluation.runners import InfrastructureError, InputError, short_line
from evaluation.runners.tar import (
    HARD_LINK,
    REGULAR,
    SYMBOLIC_LINK,
    Body,
    Readable,
    TarError,
    is_header,
    members,
)
from volumes.streams import BAD_DATA

GZIP = b"\x1f\x8b"  # how its files begin
PACKED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
DISK_BLOCK = 4 * 1024  # the least that a file or folder takes
MANIFEST, INDEX, REPOSITORIES = "manifest.json", "index.json", "repositories"
DOCUMENT_BYTES = 4 * 2**20  # of manifests and configurations together
NAMES = "io.containerd.image.name", "org.opencontainers.image.ref.name"  # for containerd, Podman
SAVE = "save it with docker save"

Kind = TypeVar("Kind")


class TooLarge(InputError):
    """An archive unpacks to more than there may be."""


@dataclass(frozen=True)
class Contents:
    """What an archive holds.

    names: that loading it sets. room_bytes: on an engine's disk while it is loaded, for the archive
    itself and its layers.
    """

    names: frozenset[str]
    room_bytes: int


def read(archive: Path, most_bytes: float) -> Contents:
    """Look through an archive, made by `docker save`, as far as it is that small.

    Raises InputError when it is no regular file, damaged, or not as `docker save` writes it,
    TooLarge when it or its layers unpack to more than `most_bytes`, InfrastructureError when it
    cannot be read.
    """
    try:
        if not stat.S_ISREG(archive.lstat().st_mode):
            raise InputError(f"{archive}: is not a regular file; hand in the archive itself")
        with opened(archive) as file:
            found = _Found(_Counted(file, most_bytes), most_bytes)
            found.read()
            return found.contents()
    except _Excess as error:
        raise TooLarge(f"{archive}: unpacks to more than {most_bytes / 2**20:.0f} MiB") from error
    except (EOFError, gzip.BadGzipFile, BAD_DATA) as error:
        raise InputError(f"{archive}: damaged gzip ({error}); save it again") from error
    except (TarError, ValueError, RecursionError) as error:
        raise InputError(f"{archive}: {short_line(str(error))}; {SAVE}") from error
    except OSError as error:
        raise InfrastructureError(f"{archive}: cannot be read ({error.strerror})") from error


def opened(archive: Path) -> BinaryIO:
    """Open an archive, what gzip has made of it undone beside the work on it."""
    with archive.open("rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
    return cast(BinaryIO, igzip_threaded.open(archive) if is_packed else archive.open("rb"))


class _Excess(Exception):
    pass


class _Counted:
    """A file of which no more than so many bytes are read."""

    def __init__(self, file: Readable, most_bytes: float) -> None:
        self._file, self._most_bytes, self.bytes = file, most_bytes, 0

    def read(self, size: int, /) -> bytes:
        block = self._file.read(size)
        self.bytes += len(block)
        if self.bytes > self._most_bytes:
            raise _Excess
        return block


@dataclass
class _Found:
    """What is known of an archive so far; paths are as in the archive, without `./`.

    layers: what each takes, unpacked. links: where each leads.
    """

    file: _Counted
    most_bytes: float
    layers: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)
    paths: set[str] = field(default_factory=set)
    documents_left: int = DOCUMENT_BYTES

    def read(self) -> None:
        for member, body in members(self.file):
            path = posixpath.normpath(member.name).lstrip("/")
            self._check_path(path, member.kind)
            if member.kind in (HARD_LINK, SYMBOLIC_LINK):
                beside = posixpath.dirname(path) if member.kind == SYMBOLIC_LINK else ""
                self.links[path] = posixpath.normpath(posixpath.join(beside, member.link))
            elif member.kind == REGULAR:
                self._read_file(path, body)
        while self.file.read(2**20):  # its checksum comes last
            pass

    def _check_path(self, path: str, kind: bytes) -> None:
        folder, name = posixpath.split(path)
        if name in (MANIFEST, INDEX, REPOSITORIES) and (folder or kind != REGULAR):
            raise TarError(f"holds {path}, which is no file of that name at its top")
        if kind == REGULAR and path in self.paths | self.links.keys():
            raise TarError(f"holds {path} twice")
        self.paths.add(path)
        while folder:
            if folder in self.links:
                raise TarError(f"holds {path} behind a link")
            folder = posixpath.dirname(folder)

    def _read_file(self, path: str, body: Body) -> None:
        start = body.peek()
        if start.startswith(GZIP):
            with igzip.IGzipFile(fileobj=body, mode="rb") as file:
                self._read_layer(path, file)
        elif is_header(start) or not any(start):
            self._read_layer(path, body)
        elif any(start.startswith(magic) for magic in PACKED):
            packed = next(name for magic, name in PACKED.items() if start.startswith(magic))
            raise TarError(f"{path} is packed by {packed}")
        elif start[:1] in (b"{", b"["):
            content = body.read(self.documents_left + 1)
            self.documents_left -= len(content)
            if self.documents_left < 0:
                raise TarError(f"more than {DOCUMENT_BYTES // 2**20} MiB of JSON")
            self.documents[path] = content

    def _read_layer(self, path: str, file: Readable) -> None:
        size = 0
        for member, _ in members(_Counted(file, self.most_bytes)):
            size += max(1, -(-member.size // DISK_BLOCK)) * DISK_BLOCK
            if size > self.most_bytes:
                raise _Excess
        self.layers[path] = size

    def contents(self) -> Contents:
        """Say what it comes to; raises ValueError or _Excess."""
        images = self._document(MANIFEST, list[_Image])
        if images is None:
            raise ValueError(f"holds no {MANIFEST}")
        size = sum(self._layer(path) for image in images for path in image.Layers)
        size = max(size, sum(map(self._blob, self._digests())))
        if size > self.most_bytes:
            raise _Excess
        names = {name for image in images for name in image.RepoTags or ()}
        for name, tags in (self._document(REPOSITORIES, dict[str, dict[str, str]]) or {}).items():
            names |= {f"{name}:{tag}" for tag in tags}
        if (index := self._document(INDEX, _Index)) is not None:
            told = [one.annotations or {} for one in index.manifests]
            names |= {one[key] for one in told for key in NAMES if key in one}
        return Contents(frozenset(names), self.file.bytes + size)

    def _document(self, path: str, kind: type[Kind]) -> Kind | None:
        """Return what JSON says; raises ValueError where readers of it may differ."""
        if path not in self.documents:
            return None
        content = json.loads(self.documents[path].decode(), object_pairs_hook=_once)
        try:
            return msgspec.convert(content, kind)
        except msgspec.ValidationError as error:
            raise ValueError(f"{path}: {error}") from error

    def _digests(self) -> Iterator[str]:
        """The layers of every manifest beneath index.json, by which some engines go."""
        for content in self.documents.values():
            try:
                pairs = json.loads(content.decode(), object_pairs_hook=_Pairs)
            except (ValueError, RecursionError):
                continue
            for layers in _values(pairs, "layers"):
                for layer in layers if isinstance(layers, list) else ():
                    yield from map(str, _values(layer, "digest"))

    def _blob(self, digest: str) -> int:
        return self.layers.get(f"blobs/{digest.replace(':', '/')}", 0)

    def _layer(self, path: str) -> int:
        path = posixpath.normpath(path)
        path = self.links.get(path, path)
        if path not in self.layers:
            raise ValueError(f"its layer {path} is not there")
        return self.layers[path]


class _Image(Struct, forbid_unknown_fields=True):
    Config: str
    Layers: list[str]
    RepoTags: list[str] | None = None
    Parent: str = ""
    LayerSources: dict[str, Any] | None = None


class _Descriptor(Struct, forbid_unknown_fields=True):
    mediaType: str = ""
    digest: str = ""
    size: int = 0
    annotations: dict[str, str] | None = None
    platform: dict[str, Any] | None = None
    artifactType: str = ""


class _Index(Struct, forbid_unknown_fields=True):
    manifests: list[_Descriptor]
    schemaVersion: int = 2
    mediaType: str = ""
    annotations: dict[str, str] | None = None


class _Pairs(list[tuple[str, Any]]):
    """What JSON calls an object, whatever it says twice."""


def _values(pairs: Any, name: str) -> list[Any]:
    """Return what goes by a name as Go takes it, which heeds no case."""
    given = pairs if isinstance(pairs, _Pairs) else ()
    return [value for key, value in given if key.casefold() == name]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a JSON file says something twice")
    return found
