"""The DICOM files of a folder, and what their elements say, read from files that may be hostile."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from app.image import DICOM_SUFFIX, ImageError
from volumes.errors import VolumeError
from volumes.streams import WRITE_AGAIN, opened
from volumes.text import one_line, shortened

if TYPE_CHECKING:
    from pydicom import Dataset

_SIGNATURE, _PREAMBLE_BYTES = b"DICM", 128
_SHOWN = 64  # characters of a text from a file: a UID


def is_dicom(file: Path) -> bool:
    """Whether a file has DICOM's signature, or promises it by its name; hidden files are none."""
    if file.name.startswith(".") or file.is_dir():
        return False
    if file.suffix.lower() == DICOM_SUFFIX:
        return True
    try:
        with opened(file) as stream:
            return _is_signed(stream)
    except VolumeError:
        return False


def check_installed(folder: Path) -> None:
    """Raise ImageError unless the packages that read and write DICOM are there."""
    for package in ("pydicom", "highdicom"):
        if importlib.util.find_spec(package) is None:
            raise ImageError(
                f"{folder}: holds DICOM, for which {package} is missing; install the extra:"
                " pip install 'flare-lesion[dicom]'"
            )


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Within it a VolumeError becomes an ImageError that names the file."""
    try:
        yield
    except VolumeError as error:
        raise ImageError(f"{file}: {error}") from None


def read_elements(file: Path, keywords: tuple[str, ...] | None) -> Dataset:
    """The elements of a file (all if ``keywords`` is None) but for its pixels.

    Nothing is inflated or allocated for what the file only promises. Raises VolumeError.
    """
    from pydicom import dcmread
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with opened(file) as stream:
        if not _is_signed(stream):
            raise VolumeError(
                f"is called {DICOM_SUFFIX}, without the signature of DICOM; export it again, or"
                " remove it"
            )
        stream.seek(0)
        with parsing():
            syntax = read_file_meta_info(file).get("TransferSyntaxUID", "")
            if syntax == DeflatedExplicitVRLittleEndian:  # pydicom inflates whatever it comes to
                raise VolumeError("its elements are deflated; export it uncompressed")
            # pydicom takes tuples for numbers of elements
            wanted = None if keywords is None else list(keywords)
            return dcmread(
                cast(BinaryIO, Clipped(stream)), stop_before_pixels=True, specific_tags=wanted
            )


class Clipped:
    """A file of which never more is asked for than it holds, as Python makes room for it first."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self._size = os.fstat(file.fileno()).st_size

    def read(self, size: int = -1) -> bytes:
        """So many bytes, all that are left if it is negative, none at the end.

        Raises VolumeError where fewer are left.
        """
        left = max(0, self._size - self.tell())
        if 0 < left < size:
            raise VolumeError(f"truncated; {WRITE_AGAIN}")
        return self._file.read(left if size < 0 or not left else size)


@contextmanager
def parsing() -> Iterator[None]:
    """Within it whatever pydicom makes of a damaged file is a VolumeError, and no warning."""
    from pydicom.config import disable_value_validation

    try:
        with disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (VolumeError, MemoryError):
        raise
    except Exception as error:  # a parser's, of bytes that may be anything
        reason = shown(f"{type(error).__name__}: {error}")
        raise VolumeError(f"pydicom cannot read it ({reason}); {WRITE_AGAIN}") from None


def shown(text: object) -> str:
    """A text from a file in one short line."""
    return shortened(one_line(str(text)), _SHOWN)


def _is_signed(stream: BinaryIO) -> bool:
    return stream.read(_PREAMBLE_BYTES + len(_SIGNATURE))[_PREAMBLE_BYTES:] == _SIGNATURE
