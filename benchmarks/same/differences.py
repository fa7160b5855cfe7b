"""Where the masks, tables and reports of two folders differ."""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

_OF_THE_CALL = ("made", "version")  # in a report
_SCRIPT = re.compile(r'<script type="([a-z/]+)" id="([\w-]+)">(.*?)</script>', re.DOTALL)


def folders_differ(before: Path, now: Path, *only: str) -> Iterator[str]:
    """Name all that differs between the files of two folders; only: patterns of READERS."""
    for pattern in only or READERS:
        one, other = (sorted(file.name for file in f.glob(pattern)) for f in (before, now))
        yield from differences(one, other, pattern)
        for name in set(one) & set(other):
            read = READERS[pattern]
            yield from differences(read(before / name), read(now / name), name)


def differences(a: Any, b: Any, place: str) -> Iterator[str]:
    """Where two structures differ; figures count as numbers, however they are written."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            yield from differences(a.get(key, "missing"), b.get(key, "missing"), f"{place}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.shape == b.shape:
        if count := np.count_nonzero(a != b):
            yield f"{place}: {count} differ"
    elif a is not b and str(a) != str(b) and _number(a) != _number(b):
        yield f"{place}: {str(a)[:60]!r} -> {str(b)[:60]!r}"


def _number(value: Any) -> Any:
    with contextlib.suppress(TypeError, ValueError):
        return float(value)
    return value


def _mask(file: Path) -> dict[str, Any]:
    image = sitk.ReadImage(file)
    grid = ("Size", "Spacing", "Origin", "Direction", "PixelIDTypeAsString")
    return {
        "voxels": sitk.GetArrayFromImage(image),
        **{what: getattr(image, f"Get{what}")() for what in grid},
    }


def _columns(file: Path) -> dict[str, list[str]]:
    head, *rows = csv.reader(file.read_text().splitlines())
    return {name: [row[i] for row in rows] for i, name in enumerate(head)}


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def _report(file: Path) -> dict[str, Any]:
    """JSON, packed JSON of the teams, and all else as it is."""
    found: dict[str, Any] = {}
    for kind, name, content in _SCRIPT.findall(file.read_text()):
        if name.startswith("team-"):
            found[name] = json.loads(gzip.decompress(base64.b64decode(content)))
        else:
            found[name] = json.loads(content) if kind == "application/json" else content
    for key in _OF_THE_CALL:
        found["overview"].pop(key)
    return found


READERS: dict[str, Callable[[Path], Any]] = {
    "*.nii.gz": _mask,
    "*.csv": _columns,
    "*.md": _lines,
    "*.tex": _lines,
    "report.html": _report,
}
