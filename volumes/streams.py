"""The bytes of a scan or mask: opened safely, unpacked with their checksum, put into an array."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from isal import igzip_lib, isal_zlib

from volumes.errors import VolumeError
from volumes.files import NotRegularError, reading

Array: TypeAlias = npt.NDArray[Any]
Dtype: TypeAlias = np.dtype[Any]
Packing: TypeAlias = Literal["gzip", "zlib"]

WRITE_AGAIN = "copy or export the file again"
GZIP_MAGIC = b"\x1f\x8b"
# Between two pieces a thread that reads waits for its turn while another imports torch; larger ones
# than these no longer stay in the processor's cache while they are copied.
PACKED_CHUNK = 1 << 20
CHUNK = 1 << 21
MOST_BEHIND = 2**24
_REST_CHUNK = 1 << 16
_PIECE = 1 << 12  # of a member's first bytes: all of it is copied where the member ends in it
# Members of bgzip and pigz hold 64 KiB and more; without end, empty ones take without end.
_MOST_SMALL_MEMBERS = 1000
_SMALL_MEMBER = 1 << 14
_DEFLATE_MAX_RATIO = 1032
BAD_DATA = cast(type[Exception], igzip_lib.error)  # isal annotates it as an instance
_FORMATS = {"gzip": igzip_lib.DECOMP_GZIP, "zlib": igzip_lib.DECOMP_ZLIB}
_WBITS = {"gzip": 31, "zlib": 15}


class Stream(Protocol):
    """What bytes are read from, an open file for one."""

    def readinto(self, target: memoryview, /) -> int | None:
        """Fill a part of target; the number of bytes, 0 at the end."""


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file; raises VolumeError for what cannot be opened, or read in the block."""
    try:
        with reading(path) as file:
            yield file
    except NotRegularError:
        raise VolumeError("not a regular file; copy what it holds into one") from None
    except FileNotFoundError:
        raise VolumeError("no such file; check its name") from None
    except OSError as error:
        reason = error.strerror or error
        raise VolumeError(f"cannot be read ({reason}); check its permissions") from None
    except MemoryError:
        raise VolumeError("too large for the memory; read it on a larger machine") from None


class Unpacked:
    """What a gzip or zlib stream holds: all gzip members, and nothing of what is behind them."""

    def __init__(self, file: BinaryIO, packing: Packing) -> None:
        self._file = file
        self._packing = packing
        self._chunk, self._at = b"", 0  # what was read of the file, and how much of it is used
        self._piece = _PIECE
        self._members, self._given = 1, 0
        self._member = igzip_lib.IgzipDecompressor(_FORMATS[packing])

    def readinto(self, target: memoryview, /) -> int:
        """Fill a part of target; the number of bytes, 0 at the end. Raises VolumeError."""
        while not self._member.eof or self._next_member():
            packed = self._packed() if self._member.needs_input else b""
            try:
                data = self._member.decompress(packed, len(target))
            except BAD_DATA as error:
                raise VolumeError(
                    f"the {self._packing} stream is damaged ({error}); {WRITE_AGAIN}"
                ) from None
            if self._member.eof:
                self._at -= len(self._member.unused_data)
            if data:
                target[: len(data)] = data
                self._given += len(data)
                return len(data)
        return 0

    def _packed(self) -> bytes:
        """The next bytes of the member; raises VolumeError where there are none."""
        if self._at == len(self._chunk):
            self._chunk, self._at = self._file.read(PACKED_CHUNK), 0
        packed = self._chunk[self._at : self._at + self._piece]
        if not packed:
            raise VolumeError(f"truncated, the {self._packing} stream ends early; {WRITE_AGAIN}")
        self._at += len(packed)
        self._piece = min(2 * self._piece, PACKED_CHUNK)
        return packed

    def _next_member(self) -> bool:
        if self._packing == "zlib" or not self._at_member():
            return False
        self._members += 1
        if self._members > _MOST_SMALL_MEMBERS + self._given // _SMALL_MEMBER:
            raise VolumeError(
                f"over {_MOST_SMALL_MEMBERS} gzip members with next to nothing in; {WRITE_AGAIN}"
            )
        self._piece = _PIECE
        self._member = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
        return True

    def _at_member(self) -> bool:
        """Whether a member follows, behind any number of zeros, which are passed over."""
        while True:
            window = self._chunk[self._at : self._at + _PIECE]
            rest = window.lstrip(b"\0")
            self._at += len(window) - len(rest)
            if len(rest) >= len(GZIP_MAGIC):
                return rest.startswith(GZIP_MAGIC)
            if self._at + len(rest) == len(self._chunk):
                more = self._file.read(PACKED_CHUNK)
                if not more:
                    return False
                self._chunk, self._at = rest + more, 0
            elif rest:  # the window's last byte
                return self._chunk.startswith(GZIP_MAGIC, self._at)


def read_voxels(
    stream: Stream, shape_zyx: tuple[int, int, int], dtype: Dtype, most_bytes: int
) -> Array:
    """Read voxels of ``dtype``, in the file's byte order, as a writable array in the native one.

    most_bytes: what the file can hold from here on, see `most_unpacked`; a header that promises
    more costs no memory. Raises VolumeError.
    """
    data_bytes = math.prod(shape_zyx) * dtype.itemsize
    truncated = f"truncated, the header promises {data_bytes} bytes of voxels; {WRITE_AGAIN}"
    if data_bytes > most_bytes:
        raise VolumeError(truncated)
    voxels = np.empty(shape_zyx, dtype)
    if fill(stream, voxels.reshape(-1).view(np.uint8).data) < data_bytes:
        raise VolumeError(truncated)
    if dtype.isnative:
        return voxels
    return voxels.byteswap(inplace=True).view(dtype.newbyteorder("="))


def most_unpacked(packed_bytes: int) -> int:
    """How many bytes can be in so many packed ones."""
    return packed_bytes * _DEFLATE_MAX_RATIO


def skip(stream: Stream, count: int) -> None:
    """Read over so many bytes, or to the end."""
    rest = bytearray(min(count, CHUNK))
    while count > 0 and (done := fill(stream, memoryview(rest)[:count])):
        count -= done


def check_end(stream: Stream) -> None:
    """Read a packed stream to its end, where its checksum is compared.

    Raises VolumeError, also for a stream that goes on for more than MOST_BEHIND bytes, as it may
    never end.
    """
    rest, behind = bytearray(_REST_CHUNK), 0
    while count := fill(stream, rest):
        behind += count
        if behind > MOST_BEHIND:
            raise VolumeError(
                f"goes on for over {MOST_BEHIND} bytes behind its voxels; {WRITE_AGAIN}"
            )


def fill(stream: Stream, target: memoryview | bytearray) -> int:
    """Read from stream until target is full; the number of bytes read, fewer at the end."""
    view, filled = memoryview(target), 0
    while filled < len(view):
        count = stream.readinto(view[filled : filled + CHUNK])
        if not count:
            break
        filled += count
    return filled


def zero_nonfinite(voxels: Array) -> int:
    """Set NaN and infinity to 0 in place; returns how many there were."""
    if voxels.dtype.kind != "f":
        return 0
    # NaN and infinity show in the extremes, which need no array of their own.
    with np.errstate(invalid="ignore"):
        if np.isfinite(voxels.min()) and np.isfinite(voxels.max()):
            return 0
    strange = ~np.isfinite(voxels)
    voxels[strange] = 0
    return int(np.count_nonzero(strange))


def write_voxels(
    file: BinaryIO, head: bytes, planes: Iterable[Array], dtype: Dtype, packing: Packing | None
) -> int:
    """Write voxels behind ``head``, little-endian, all of it in a gzip or zlib stream or as it is.

    planes: parts (z, y, x) in order; each is written before the next is asked for. Returns how many
    bytes were written. Raises OSError, and what ``planes`` raises.
    """
    packer = isal_zlib.compressobj(1, isal_zlib.DEFLATED, _WBITS[packing]) if packing else None
    pack = packer.compress if packer else memoryview
    written = file.write(pack(head))
    for part in planes:
        written += file.write(pack(np.ascontiguousarray(part, dtype.newbyteorder("<")).data))
    return written + (file.write(packer.flush()) if packer else 0)
