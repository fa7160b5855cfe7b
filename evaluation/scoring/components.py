"""Connected components, the one call of cc3d in the harness."""

import cc3d
import numpy as np
from numpy.typing import NDArray

from evaluation.scoring.rules import Connectivity


def connected(
    mask: NDArray[np.bool_], connectivity: Connectivity
) -> tuple[NDArray[np.unsignedinteger], int]:
    """Return the components of a mask (z, y, x), 0 outside and from 1 on, and how many they are."""
    # As bytes: of truth values cc3d refuses some thin ones, [1, 0, 1] for example.
    labels, count = cc3d.connected_components(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=connectivity, return_N=True
    )
    return labels, count
