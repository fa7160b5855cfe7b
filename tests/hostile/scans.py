"""Scans: damaged, boundless, or odd and yet sound, in every format."""

from __future__ import annotations

import gzip
import os
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.entry import Entry, as_scan, written
from tests.volumes import test_metaimage, test_nifti, test_nrrd
from tests.volumes.nifti_files import ODD_HEADERS, scan_bytes
from volumes.formats import SUFFIXES

NO_PERSON, MANY = "no person's", "over 1000 gzip members"
BEHIND = "goes on for over 16777216 bytes behind its voxels"
MIB = bytes(2**20)
DETACHED: dict[str, Callable[[str], bytes]] = {
    ".mhd": test_metaimage.header,
    ".nhdr": lambda data: test_nrrd.header(data_file=data),
}
RAW = test_nrrd.voxels().tobytes()


def scans() -> Iterator[Entry]:
    """All of them."""
    yield from _odd_niftis()
    yield from _damaged_niftis()
    yield from _far_too_large()
    yield from _streams()
    yield from _metaimages()
    yield from _nrrds()
    yield from _detached()
    yield from _no_files()


def _entry(kind: str, name: str, file: str, content: bytes, says: str | None) -> Entry:
    return Entry(kind, name, written(file, content), as_scan, says)


def _odd_niftis() -> Iterator[Entry]:
    """Headers that some reader takes: each mask must be one that all of them take."""
    headers = ODD_HEADERS | {name: fields for name, (fields, _) in test_nifti.DAMAGED.items()}
    for name, given in headers.items():
        for version in (1, 2):
            fields: dict[str, Any] = dict(given)
            if version == 2:
                fields.pop("vox_offset", None)
                fields.pop("magic", None)
            says = "less than one voxel of the model's" if "microns" in name else None
            data = scan_bytes(version=version, **fields)
            yield _entry("odd NIfTI headers", f"{name}, {version}", "a.nii.gz", _packed(data), says)


def _damaged_niftis() -> Iterator[Entry]:
    for name, (data, says) in test_nifti.REFUSED.items():
        yield _entry("damaged NIfTI", name, "a.nii", data, says)
        if data[:2] != b"\x1f\x8b":
            yield _entry("damaged NIfTI", f"{name}, packed", "a.nii.gz", _packed(data), says)


def _far_too_large() -> Iterator[Entry]:
    """Little files that promise much; none is more than 2 MB."""
    kind = "beyond a person or the file"
    for step in (1500, 1e5, 1e38):
        for axis in (1, 2, 3):
            pixdim = [1, 0.8, 0.9, 2.5, 0, 0, 0, 0]
            pixdim[axis] = step
            name = f"{step:g} mm along {axis}"
            yield _entry(kind, name, "a.nii", scan_bytes(pixdim=pixdim), NO_PERSON)
    metres = scan_bytes(xyzt_units=1)
    yield _entry(kind, "metres that are mm", "a.nii", metres, NO_PERSON)
    for size in (2**15 - 1, 2**31, 2**62):
        dim = (3, size, size, 5, 1, 1, 1, 1)
        head = scan_bytes(version=2, dim=dim, values=np.zeros(0))
        yield _entry(kind, f"NIfTI of {size} squared", "a.nii.gz", _packed(head), NO_PERSON)
        digits = f"{size} {size} 5" if size < 2**31 else "999999999 999999999 5"
        head = test_metaimage.header(DimSize=digits)
        yield _entry(kind, f"MetaImage of {size} squared", "a.mha", head, NO_PERSON)
        head = test_nrrd.header(sizes=digits)
        yield _entry(kind, f"NRRD of {size} squared", "a.nrrd", head, NO_PERSON)
    fine = [1, 0.05, 0.05, 0.05, 0, 0, 0, 0]
    for size, says in ((2**15 - 1, NO_PERSON), (1200, "truncated, the header promises")):
        dim = (3, size, size, 1200, 1, 1, 1, 1)
        head = scan_bytes(pixdim=fine, dim=dim, values=np.zeros(0))
        for suffix, data in ((".nii", head), (".nii.gz", _packed(head) + gzip.compress(MIB))):
            yield _entry(kind, f"{size} a side, 0.05 mm, {suffix}", f"a{suffix}", data, says)
    voxels = np.full((20, 20, 20), 40)
    coarse = [1, 100, 100, 100, 0, 0, 0, 0]
    data = scan_bytes(pixdim=coarse, dim=(3, 20, 20, 20, 1, 1, 1, 1), values=voxels)
    yield _entry(kind, "2 m cubed", "a.nii", data, None)
    coarse = [1, 199, 199, 199, 0, 0, 0, 0]
    data = scan_bytes(pixdim=coarse, dim=(3, 20, 20, 20, 1, 1, 1, 1), values=voxels)
    yield _entry(kind, "4 m cubed", "a.nii", data, "more than 2147483648")


def _streams() -> Iterator[Entry]:
    """What packed voxels may hold besides them."""
    nifti = scan_bytes()
    bomb = gzip.compress(MIB)
    for name, data, says in (
        ("gigabytes behind the voxels", _packed(nifti) + bomb * 1500, BEHIND),
        ("gigabytes before the voxels", _offset(1e9) + bomb * 1500, "cannot start at byte"),
        ("members of nothing", gzip.compress(b"") * 100_000, MANY),
        ("members of nothing behind", _packed(nifti) + gzip.compress(b"") * 90_000, MANY),
        ("members of one byte", _packed(nifti) + gzip.compress(b"\0") * 90_000, MANY),
        ("members with zeros between", (gzip.compress(b"") + b"\0") * 90_000, MANY),
        ("zeros behind", _packed(nifti) + MIB * 2, None),
        ("rubbish behind", _packed(nifti) + b"rubbish" * 99, None),
        ("a stream in a stream", gzip.compress(_packed(nifti)), "shorter than a NIfTI header"),
    ):
        yield _entry("streams", f"NIfTI, {name}", "a.nii.gz", data, says)
    offsets = {"inf": None, "-inf": None, "nan": None, "-1": None, "3e38": "cannot start at byte"}
    for text, says in offsets.items():
        yield _entry("streams", f"vox_offset of {text}", "a.nii.gz", _offset(float(text)), says)
    for form, (suffix, head, packing) in {
        "MetaImage": (".mha", test_metaimage.header(CompressedData="True"), "zlib"),
        "NRRD": (".nrrd", test_nrrd.header(encoding="gzip"), "gzip"),
    }.items():
        stream = zlib.compress(RAW) if packing == "zlib" else gzip.compress(RAW)
        huge = zlib.compress(RAW + MIB * 32) if packing == "zlib" else stream + bomb * 1500
        middle = len(stream) // 2
        for name, data, says in (
            ("sound", stream, None),
            ("gigabytes behind", huge, BEHIND),
            ("cut", stream[:-9], "truncated"),
            ("no stream", b"", "truncated"),
            ("a byte turned", stream[:middle] + b"\xff\0\xff" + stream[middle + 3 :], "damaged"),
            ("a checksum turned", stream[:-4] + bytes(4), "damaged"),
            ("64 bytes of zero", stream[:40] + bytes(64) + stream[104:], "damaged"),
            ("too few voxels", _again(RAW[:-2], packing), "truncated, the header"),
            ("another packing", _again(RAW, "gzip" if packing == "zlib" else "zlib"), "damaged"),
        ):
            yield _entry("streams", f"{form}, {name}", f"a{suffix}", head + data, says)


def _metaimages() -> Iterator[Entry]:
    for name, changes in test_metaimage.ODD.items():
        head = test_metaimage.header(**changes)
        yield _entry("MetaImage", name, "a.mha", head + RAW, None)
    numbers = ("", "x", "nan", "inf", "-inf", "1e999", "%s%n", "1,5", "\0", "0x10", "1_0", "٣")
    for field, good in (
        ("DimSize", "6 5"),
        ("ElementSpacing", "1 1"),
        ("Offset", "1 1"),
        ("TransformMatrix", "1 0 0 0 1 0 0 0"),
    ):
        for number in numbers:
            head = test_metaimage.header(**{field: f"{good} {number}"})
            yield _entry("MetaImage", f"{field} with {number!r}", "a.mha", head + RAW, f"{field}")
    for field, value, says in (
        *(("NDims", value, "its NDims") for value in ("-1", "0", "1", "6", "100", "1e308", "%d")),
        *(("ElementType", value, "holds") for value in ("MET_OTHER", "MET_NONE", "", "%s" * 99)),
        ("ElementNumberOfChannels", "3", "Channels is 3"),
        ("HeaderSize", "9" * 99, "its HeaderSize cannot be"),
        ("HeaderSize", "-2", "its HeaderSize cannot be"),
        ("BinaryData", "False", "its BinaryData is False"),
        ("CompressedData", "perhaps", "its CompressedData is perhaps"),
        ("Comment", "x" * 2**17, "not a MetaImage file"),
    ):
        head = test_metaimage.header(**{field: value})
        yield _entry("MetaImage", f"{field} of {value[:9]}", "a.mha", head + RAW, says)


def _nrrds() -> Iterator[Entry]:
    for number, (changes, says) in enumerate(test_nrrd.REFUSED):
        name = f"{number}, {', '.join(changes)}"
        yield _entry("NRRD", name, "a.nrrd", test_nrrd.header(**changes) + RAW, says)
    for value in ("()", "(1,2)", "(1,2,3", "(1,2,1e999)", "(%s,%n,0)", "(0x1,0,0)", "((1,2,3))"):
        head = test_nrrd.header(space_origin=value)
        yield _entry("NRRD", f"space origin of {value}", "a.nrrd", head + RAW, "its space origin")


def _detached() -> Iterator[Entry]:
    """Headers that name other files than their voxels."""
    for suffix, head in DETACHED.items():
        for name, says in {
            "/etc/passwd": "not a file in the header's folder",
            "/dev/zero": "not a file in the header's folder",
            "../a.raw": "not a file in the header's folder",
            "sub/../../a.raw": "not a file in the header's folder",
            "..": "not a file in the header's folder",
            ".": "",
            "LIST": "voxels in several files",
            "%s%s%n": "voxels in several files",
            "a%03d.raw 1 4 1": "voxels in several files",
            "absent.raw": "no such file",
            "pipe.raw": "not a regular file",
            "zero.raw": "not a regular file",
            "x" * 5000: "",
        }.items():
            make = _with_neighbours(f"a{suffix}", head(name))
            yield Entry("voxels elsewhere", f"{suffix}, {name[:20]}", make, as_scan, says)


def _with_neighbours(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / "pipe.raw")
        (folder / "zero.raw").symlink_to("/dev/zero")
        return written(name, content)(folder)

    return make


def _no_files() -> Iterator[Entry]:
    """What has a scan's name and is none."""
    for suffix in SUFFIXES:
        said_of = SAID_OF | {"a folder": "holds no slice of a CT; "}
        unlike = {".nii": "NIfTI", ".nii.gz": "NIfTI", ".mha": "not a MetaImage"}
        unlike |= {".mhd": "not a MetaImage", ".nrrd": "not an NRRD", ".nhdr": "not an NRRD"}
        for name, make in NO_FILES.items():
            says = said_of.get(name, unlike[suffix])
            yield Entry("no files", f"{name}, {suffix}", make(f"a{suffix}"), as_scan, says)


def _pipe(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def _socket(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with socket.socket(socket.AF_UNIX) as bound:
            # The path from here: a socket's may not have more than 107 characters.
            bound.bind(os.path.relpath(folder / name))
        return folder / name

    return make


def _folder(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


def _link(target: str) -> Callable[[str], Callable[[Path], Path]]:
    def named(name: str) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            (folder / name).symlink_to(target.format(name=name))
            return folder / name

        return make

    return named


NO_FILES: dict[str, Callable[[str], Callable[[Path], Path]]] = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a folder": _folder,
    "a device": _link("/dev/zero"),
    "a link to nothing": _link("nothing"),
    "a link to itself": _link("{name}"),
    "nothing in it": lambda name: written(name, b""),
    "text": lambda name: written(name, b"a scan\n" * 99),
}

SAID_OF = {  # by readers of volumes
    **dict.fromkeys(("a pipe", "a folder", "a device"), "not a regular file; "),
    "a socket": "cannot be read (No such device or address)",
    "a link to nothing": "no such file; ",
    "a link to itself": "cannot be read (Too many levels of symbolic links)",
}


def _offset(offset: float) -> bytes:
    """A packed NIfTI whose voxels start at such a byte."""
    data = bytearray(scan_bytes(vox_offset=348))
    data[108:112] = np.float32(offset).tobytes()
    return _packed(bytes(data))


def _packed(data: bytes) -> bytes:
    return gzip.compress(data, 1)


def _again(data: bytes, packing: str) -> bytes:
    return zlib.compress(data) if packing == "zlib" else gzip.compress(data)
