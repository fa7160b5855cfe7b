"""The raw curve as a file: gzipped CSV, one row a sample, kept with every case."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.gpu.curve import Curve
from volumes.files import write_whole

COLUMNS = ("before_s", "after_s", "used_mib", "free_mib", "reserved_mib", "total_mib")
HEADER = ",".join((*COLUMNS, "api"))
# A microsecond, and a millionth of a MiB: about a byte.
ROW = ",".join(["%.6f"] * len(COLUMNS))
COMPRESSION = 3  # hours of samples within a second; 6 takes three times as long for 10 % less


def write_curve(path: Path, curve: Curve, origin_s: float) -> None:
    """Write a curve with the times relative to `origin_s`, the container's start.

    Columns: before_s, after_s, used_mib, free_mib, reserved_mib (nan in API v1), total_mib, api.
    `path` is absent (or as it was) until it is complete.
    """
    times_s = (curve.before_s - origin_s, curve.after_s - origin_s)
    memory_mib = (curve.used_mib, curve.free_mib, curve.reserved_mib, curve.total_mib)
    columns = [column.tolist() for column in (*times_s, *memory_mib)]
    row = f"{ROW},{curve.api}\n"
    text = f"{HEADER}\n" + "".join([row % values for values in zip(*columns, strict=True)])
    write_whole(path, gzip.compress(text.encode(), COMPRESSION, mtime=0))


def read_curve(path: Path) -> Curve:
    """Read what `write_curve` wrote; times are relative to the origin that was given there.

    Raises EvaluationError when the file is missing, damaged or something else.
    """
    try:
        header, _, rows = gzip.decompress(path.read_bytes()).decode().partition("\n")
        if header != HEADER:
            raise EvaluationError(f"{path}: the columns are {header[:200]!r}, expected {HEADER!r}")
        lines = rows.splitlines()
        table = np.empty((0, len(COLUMNS)))
        if lines:
            used = range(len(COLUMNS))
            table = np.loadtxt(lines, delimiter=",", usecols=used, ndmin=2)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise EvaluationError(f"{path}: cannot be read as a memory curve ({error})") from error
    return Curve(*(np.ascontiguousarray(column) for column in table.T))
