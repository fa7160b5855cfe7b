"""Reads a tar as engines do (Go's archive/tar), bounded, whatever is in it.

Python's tarfile reads a name of any length into memory, does not end on some damaged files, and
takes some headers for others than an engine does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

BLOCK = 512
SPECIAL_BYTES = 2**20  # of a long name or a pax header, as Go has it
SKIP_BYTES = 2**20
REGULAR, HARD_LINK, SYMBOLIC_LINK = b"0", b"1", b"2"
HEADER_ONLY = b"123456"  # links, devices, folders, pipes: nothing follows, whatever they say
PAX, LONG_NAME, LONG_LINK, SPARSE = b"x", b"L", b"K", b"S"
GLOBAL = b"g"  # which engines do not heed


class TarError(Exception):
    """It is no tar, or a damaged one."""


class Readable(Protocol):
    """What a tar is read from."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer at the end alone."""


@dataclass(frozen=True)
class Member:
    """One thing in a tar. size: in bytes, unpacked. link: what it leads to, where it is one."""

    name: str
    kind: bytes
    size: int
    link: str


class Body:
    """The content of a member."""

    def __init__(self, file: Readable, size: int) -> None:
        self._file, self._left, self._ahead = file, size, b""
        self._padding = -size % BLOCK

    def peek(self) -> bytes:
        """Return the first block, or what there is of it; it is read again afterwards."""
        self._ahead = self._ahead or self.read(BLOCK)
        return self._ahead

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer at the end alone."""
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        more = min(size - len(taken), self._left)
        self._left -= more
        return taken + _exactly(self._file, more)

    def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer, as what unpacks does; return how many bytes."""
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def skip(self) -> None:
        """Read to the end, and what fills the last block."""
        while self.read(SKIP_BYTES):
            pass
        _exactly(self._file, self._padding)


def members(file: Readable) -> Iterator[tuple[Member, Body]]:
    """Yield what a tar holds; what is not read of a content is skipped. Raises TarError."""
    said: dict[str, str] = {}  # of the next member, by headers before its own
    before: set[bytes] = set()  # the kinds of these
    while (header := file.read(BLOCK)) and any(header):
        if not is_header(header):
            raise TarError("no tar, or a damaged one")
        kind = header[156:157].replace(b"\0", REGULAR)
        if kind in before:
            raise TarError("two headers of a kind for one member")
        if kind in (PAX, LONG_NAME, LONG_LINK):
            before.add(kind)
            body = Body(file, _number(header[124:136]))
            said |= _special(kind, body)
        elif kind == GLOBAL:
            body = Body(file, _number(header[124:136]))
        else:
            body = Body(file, 0 if kind in HEADER_ONLY else _size(header, said))
            yield _member(header, kind, said, file), body
            said, before = {}, set()
        body.skip()
    if any(file.read(BLOCK)):
        raise TarError("goes on behind its end")


def is_header(block: bytes) -> bool:
    """Say whether a block is the header of a member, by its checksum."""
    blank = block[:148] + b" " * 8 + block[156:]
    try:
        return len(block) == BLOCK and _number(block[148:156]) == sum(blank)
    except TarError:
        return False


def _member(header: bytes, kind: bytes, said: dict[str, str], file: Readable) -> Member:
    name, link = _text(header[:100]), _text(header[157:257])
    end_of_prefix = 476 if header[508:] == b"tar\0" else 500
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:end_of_prefix])):
        name = f"{prefix}/{name}"
    size = 0 if kind in HEADER_ONLY else _size(header, said)
    if kind == SPARSE:
        size, goes_on = _number(header[483:495]), header[482]
        while goes_on:  # the list of its pieces
            goes_on = _exactly(file, BLOCK)[504]
    sparse = (said.get(f"GNU.sparse.{key}") for key in ("size", "realsize"))
    size = max(size, *(_decimal(one or "0") for one in sparse))
    name = said.get("long name") or said.get("GNU.sparse.name") or said.get("path", name)
    return Member(name, kind, size, said.get("long link") or said.get("linkpath", link))


def _special(kind: bytes, body: Body) -> dict[str, str]:
    content = body.read(SPECIAL_BYTES + 1)
    if len(content) > SPECIAL_BYTES:
        raise TarError(f"a name or header of more than {SPECIAL_BYTES} bytes")
    if kind == PAX:
        return dict(_pax(content))
    return {"long name" if kind == LONG_NAME else "long link": _text(content)}


def _pax(content: bytes) -> Iterator[tuple[str, str]]:
    while content.strip(b"\0"):
        length = _decimal(_text(content.partition(b" ")[0]))
        key, equals, value = content[:length].partition(b" ")[2].partition(b"=")
        if not equals or value[-1:] != b"\n" or length > len(content):
            raise TarError("a damaged pax header")
        if value != b"\n":
            yield _text(key), _text(value[:-1])
        content = content[length:]


def _size(header: bytes, said: dict[str, str]) -> int:
    return _decimal(said["size"]) if "size" in said else _number(header[124:136])


def _number(field: bytes) -> int:
    """Return a number that is octal text, or big-endian bytes."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise TarError("a size below 0 or beyond all disks")
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0").partition(b"\0")[0]
    if text.strip(b"01234567"):
        raise TarError("a number that is none")
    return int(text or b"0", 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise TarError("a number that is none")
    return int(text)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _exactly(file: Readable, size: int) -> bytes:
    found = file.read(size) if size else b""
    if len(found) != size:
        raise TarError("truncated")
    return found
