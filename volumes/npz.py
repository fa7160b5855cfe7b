"""NumPy's .npz with one array, written as it comes along its second axis."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from volumes.files import replacing
from volumes.streams import CHUNK, Array, Dtype


@contextmanager
def writing(
    path: Path, name: str, shape: Sequence[int], dtype: Dtype
) -> Iterator[Callable[[Array], None]]:
    """Yield a function that takes parts (c, planes, y, x) of the array (c, z, y, x), in order.

    In the file one c follows the other, so that parts first go, uncompressed, into a file beside
    it; when the block ends it is compressed. ``path`` is as it was, or complete. Raises OSError.
    """
    dtype, plane = dtype.newbyteorder("<"), math.prod(shape[2:]) * dtype.itemsize
    with replacing(path) as part:
        spool = part.with_name(f"{part.name}.npy")
        try:
            with spool.open("w+b") as file:
                header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
                np.lib.format.write_array_header_1_0(file, {**header, "shape": tuple(shape)})
                start, done = file.tell(), 0

                def add(planes: Array) -> None:
                    nonlocal done
                    for number, some in enumerate(planes):
                        file.seek(start + (number * shape[1] + done) * plane)
                        file.write(np.ascontiguousarray(some, dtype).data)
                    done += planes.shape[1]

                yield add
                file.seek(0)
                with (
                    zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
                    packed.open(f"{name}.npy", "w", force_zip64=True) as inside,
                ):
                    shutil.copyfileobj(file, inside, CHUNK)
        finally:
            spool.unlink(missing_ok=True)
