"""app.dicom: files that are damaged, or made to harm, are one line each and cost nothing."""

from __future__ import annotations

import os
import re
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    JPEG2000MC,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGExtended12Bit,
    JPEGLossless,
    RLELossless,
)

from app.image import ImageError, read_image
from tests.app.dicom.made import SHAPE, SPACING, change, ct, save, slices

Spoil = Callable[[Path], object]


def cut(size: int) -> Spoil:
    return lambda file: os.truncate(file, size)


def cut_off(size: int) -> Spoil:
    return lambda file: os.truncate(file, file.stat().st_size - size)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def rewritten(**elements: Any) -> Spoil:
    def apply(file: Path) -> None:
        dataset = dcmread(file)
        change(**elements)(dataset)
        dataset.save_as(file)

    return apply


def repacked(syntax: str) -> Spoil:
    """The file says that its pixels are packed in this way."""

    def apply(file: Path) -> None:
        dataset = dcmread(file)
        old = dataset.file_meta.TransferSyntaxUID.encode()
        content = file.read_bytes()
        size = len(old) + len(old) % 2
        start = content.index(old)
        new = syntax.encode() + b"\0" * (len(syntax) % 2)
        content = (
            content[: start - 2] + len(new).to_bytes(2, "little") + new + content[start + size :]
        )
        group = content.index(b"\x02\x00\x00\x00UL\x04\x00") + 8  # its length
        length = int.from_bytes(content[group : group + 4], "little") + len(new) - size
        file.write_bytes(content[:group] + length.to_bytes(4, "little") + content[group + 4 :])

    return apply


def promise(length: int) -> Spoil:
    """The description says that it is so long."""

    def apply(file: Path) -> None:
        content = file.read_bytes()
        start = content.index(b"\x08\x00\x3e\x10LO")  # series description
        head = content[: start + 4] + b"UT\0\0" + length.to_bytes(4, "little")
        file.write_bytes(head + content[start + 8 :])

    return apply


def nested(depth: int) -> Spoil:
    def apply(file: Path) -> None:
        content = file.read_bytes()
        start = content.index(b"\x08\x00\x3e\x10LO")
        sequence = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        file.write_bytes(content[:start] + sequence * depth + content[start:])

    return apply


# How one slice is spoiled, and what is said of it.
SPOILED: dict[str, tuple[Spoil, str]] = {
    "empty": (cut(0), "is called .dcm, without the signature of DICOM"),
    "the signature alone": (cut(132), "does not say what it is"),
    "cut in the pixels": (cut_off(100), "truncated"),
    "a pipe": (pipe, "not a regular file"),
    "text": (lambda file: file.write_text("text " * 100), "without the signature of DICOM"),
    "no position": (rewritten(ImagePositionPatient=None), "has no ImagePositionPatient"),
    "no orientation": (rewritten(ImageOrientationPatient=None), "has no ImageOrientationPatient"),
    "no spacing": (rewritten(PixelSpacing=None), "has no PixelSpacing"),
    "an empty spacing": (rewritten(PixelSpacing=""), "has no PixelSpacing"),
    "no slope": (rewritten(RescaleSlope=None), "has no RescaleSlope"),
    "no rows": (rewritten(Rows=None), "has no Rows"),
    "no pixels": (rewritten(PixelData=None), "promises 24 x 22 pixels"),
    "two coordinates": (rewritten(ImagePositionPatient=[1, 2]), "expected 3 numbers"),
    "a spacing of 0": (rewritten(PixelSpacing=[0, 1]), "its PixelSpacing is 0 x 1 mm"),
    "parallel axes": (rewritten(ImageOrientationPatient=[1, 0, 0] * 2), "is no two axes"),
    "absurd size": (rewritten(Rows=65535, Columns=65535), "promises 65535 x 65535 pixels"),
    "a size of 0": (rewritten(Rows=0), "promises 0 x 22 pixels"),
    "colour": (rewritten(SamplesPerPixel=3), "has 3 numbers a pixel"),
    "one bit": (rewritten(BitsAllocated=1), "of 1 bits"),
    "two frames": (rewritten(NumberOfFrames=2), ""),
    "deflated": (repacked(DeflatedExplicitVRLittleEndian), "its elements are deflated"),
    "no decoder installed": (
        repacked(JPEGLossless),
        "its pixels are packed as JPEG Lossless, Non-Hierarchical (Process 14)"
        " (1.2.840.10008.1.2.4.57), for which a decoder is missing; pip install python-gdcm",
    ),
    "no decoder of twelve bits": (repacked(JPEGExtended12Bit), "pip install python-gdcm"),
    "no decoder but one": (repacked(HTJ2KLossless), "pip install pylibjpeg-openjpeg"),
    "no decoder at all": (repacked(JPEG2000MC), "which pydicom cannot decode"),
    "not so packed": (repacked(RLELossless), "pydicom cannot read it"),
    "an unknown transfer syntax": (repacked("1.2.3"), "its TransferSyntaxUID is 1.2.3"),
    "an element of 4 GB": (promise(0xFFFFFFF0), "truncated"),
    "sequences in sequences": (nested(3000), ""),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_slice_is_one_line(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, message = SPOILED[name]
    folder = save(tmp_path, slices(ct(), SPACING))
    read_image(folder)  # what is imported is no cost of the file
    spoil(folder / "IM0003.dcm")
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as refused:
            read_image(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    text = str(refused.value)
    assert text.startswith(f"{folder / 'IM0003.dcm'}: ")
    assert message in text
    assert "\n" not in text
    assert len(text.removeprefix(str(folder))) <= 300
    assert re.search("; |, or ", text)  # what to do
    assert capfd.readouterr() == ("", "")


def test_wherever_a_slice_is_cut_it_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, slices(ct()[:2], SPACING))
    file = folder / "IM0001.dcm"
    content = file.read_bytes()
    for size in range(0, len(content), 29):
        file.write_bytes(content[:size])
        with pytest.raises(ImageError, match=r"IM0001\.dcm: .*; "):
            read_image(folder)


def test_whatever_bytes_are_wrong_no_other_error_comes(tmp_path: Path) -> None:
    folder = save(tmp_path, slices(ct()[:2], SPACING))
    file = folder / "IM0001.dcm"
    content = np.frombuffer(file.read_bytes(), np.uint8)
    random, refused = np.random.default_rng(0), 0
    header = content.size - 2 * SHAPE[1] * SHAPE[2]
    for _ in range(300):
        spoiled = content.copy()
        spoiled[random.integers(132, header, 3)] = random.integers(0, 256, 3)
        file.write_bytes(spoiled.tobytes())
        try:
            read_image(folder)
        except ImageError:
            refused += 1
    assert 100 < refused < 300


def test_a_number_that_is_none(tmp_path: Path) -> None:
    folder = save(tmp_path, slices(ct(), SPACING))
    file = folder / "IM0003.dcm"
    file.write_bytes(file.read_bytes().replace(b"-1024", b"-1O24"))
    with pytest.raises(ImageError, match=r"IM0003\.dcm: "):
        read_image(folder)


def test_a_size_that_fits_no_person_is_refused_however_well_it_packs(tmp_path: Path) -> None:
    made = slices(ct(), SPACING)
    for one in made:
        one.compress(RLELossless, generate_instance_uid=False)
        one.Rows = one.Columns = 60000
        one.add_new(0x00091010, "OB", bytes(2**23))  # so large a file could hold them
    with pytest.raises(ImageError, match="promises 60000 x 60000 pixels"):
        read_image(save(tmp_path, made))


@pytest.mark.parametrize("package", ["pydicom", "highdicom"])
def test_without_the_extra_one_line_names_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path, slices(ct(), SPACING))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImageError) as refused:
        read_image(folder)
    assert str(refused.value) == (
        f"{folder}: holds DICOM, for which {package} is missing; install the extra:"
        " pip install 'flare-lesion[dicom]'"
    )
