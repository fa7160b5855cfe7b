"""Curves of a GPU's memory, as the sampler gives them."""

import numpy as np
from numpy.typing import ArrayLike

from evaluation.gpu.curve import Curve

RESERVED_MIB = 500.0
TOTAL_MIB = 24576.0


def curve(t_s: ArrayLike, used_mib: ArrayLike, query_s: float = 0.0) -> Curve:
    """A curve of API v2 whose calls take query_s around t_s."""
    middle = np.asarray(t_s, float)
    used = np.asarray(used_mib, float)
    return Curve(
        before_s=middle - query_s / 2,
        after_s=middle + query_s / 2,
        used_mib=used,
        free_mib=TOTAL_MIB - RESERVED_MIB - used,
        reserved_mib=np.full_like(used, RESERVED_MIB),
        total_mib=np.full_like(used, TOTAL_MIB),
    )
