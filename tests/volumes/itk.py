"""A file in words of a header, read here and by ITK."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import SimpleITK

from volumes.text_header import TextHeader

SITK: Any = SimpleITK


def same_as_itk(reader: ModuleType, path: Path) -> TextHeader:
    """Compare what a module of volumes reads with what ITK does; returns the header."""
    found, stored = reader.read(path)
    image = SITK.ReadImage(str(path))
    theirs = SITK.GetArrayFromImage(image)
    assert stored.dtype == theirs.dtype
    assert stored.dtype.isnative
    np.testing.assert_array_equal(stored, theirs.reshape(stored.shape))
    assert found.spacing_xyz == image.GetSpacing()
    ndim = len(found.sizes)
    lps = np.array(image.GetDirection()).reshape(ndim, ndim) * image.GetSpacing()
    np.testing.assert_allclose(found.axes, lps, atol=1e-12)
    np.testing.assert_allclose(found.origin, image.GetOrigin())
    assert isinstance(found, TextHeader)
    return found
