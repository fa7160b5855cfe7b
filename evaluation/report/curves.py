"""A VRAM-time curve small enough that thousands of them fit into a page, with all of its peaks."""

import numpy as np

from evaluation.gpu.curve import Curve, thinned

INTERVALS = 1_000_000  # over all curves of a page, each of up to four points
MOST, LEAST = 500, 25  # of one curve


def intervals(curves: int) -> int:
    """Return how many intervals each of so many curves may have."""
    return min(MOST, max(LEAST, INTERVALS // max(curves, 1)))


def packed(curve: Curve, columns: int) -> dict[str, list[int]] | None:
    """Return a curve as whole milliseconds, each since the one before, and whole MiB.

    Of each of `columns` equal intervals its first, lowest, highest and last sample stay; of
    samples in a row that are all the same, the first and the last. None: there is no sample.
    """
    if not len(curve):
        return None
    t_s, used_mib = thinned(curve.t_s, curve.used_mib, columns)
    t_ms, mib = np.rint(1000 * t_s).astype(int), np.rint(used_mib).astype(int)
    level = np.zeros(len(mib), bool)
    level[1:-1] = (mib[1:-1] == mib[:-2]) & (mib[1:-1] == mib[2:])
    return {
        "step_ms": np.diff(t_ms[~level], prepend=0).tolist(),
        "mib": mib[~level].tolist(),
    }
