"""Connected components, the one call of cc3d in the app."""

from __future__ import annotations

from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray


def connected(
    mask: NDArray[np.bool_], connectivity: Literal[6, 26]
) -> tuple[NDArray[np.unsignedinteger], int]:
    """Return the components of a mask (z, y, x), 0 outside and from 1 on, and how many they are.

    connectivity: by faces, or by edges and corners, too.
    """
    # As bytes: of truth values cc3d refuses some thin ones, [1, 0, 1] for example.
    labels, count = cc3d.connected_components(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=connectivity, return_N=True
    )
    return labels, count
