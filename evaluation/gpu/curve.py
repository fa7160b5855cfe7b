"""GPU memory over time: what one run used of it, net of the baseline and in the organisers' way.

Pure arithmetic. Times are seconds of CLOCK_MONOTONIC (`time.monotonic`), memory is in MiB (2**20
bytes). Between two samples memory is taken to change linearly.
"""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import EvaluationError

Api = Literal["v1", "v2"]
Floats = NDArray[np.float64]

BASELINE_S = 1.0
# CUDA takes memory from the driver in blocks of 2 MiB, and a process with nothing but a CUDA
# context holds many times 16 MiB: a context that comes or goes always moves the curve by more than
# this, a few blocks of the driver's own do not.
NOISE_MIB = 16.0
FLARE_INTERVAL_S = 0.1


@dataclass(frozen=True, eq=False)
class Curve:
    """Samples of one GPU's memory: float64 arrays of shape (n,), in the order they were taken.

    before_s, after_s: stamps right before and after each NVML call. used_mib: NVML's `used`; in the
    v1 API it includes the memory that the driver reserves, in v2 it does not. reserved_mib: NaN
    in v1, which does not report it.
    """

    before_s: Floats
    after_s: Floats
    used_mib: Floats
    free_mib: Floats
    reserved_mib: Floats
    total_mib: Floats

    def __post_init__(self) -> None:
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(set(shapes.values())) != 1 or len(np.shape(self.before_s)) != 1:
            raise ValueError(f"a curve needs 1-D arrays of one length, got {shapes}")

    def __len__(self) -> int:
        return len(self.before_s)

    @property
    def t_s(self) -> Floats:
        """When each sample was taken: the middle of its NVML call. Shape (n,)."""
        return (self.before_s + self.after_s) / 2

    @property
    def api(self) -> Api:
        """Which NVML memory API the samples come from."""
        return "v1" if len(self) and bool(np.isnan(self.reserved_mib).all()) else "v2"

    def between(self, start_s: float, end_s: float) -> "Curve":
        """Return the samples whose `t_s` lies in [start_s, end_s]."""
        t_s = self.t_s
        first = int(np.searchsorted(t_s, start_s, side="left"))
        last = int(np.searchsorted(t_s, end_s, side="right"))
        return Curve(*(getattr(self, field.name)[first:last] for field in fields(self)))


@dataclass(frozen=True)
class Baseline:
    """Memory in use before a run: the median of its samples, and largest minus smallest."""

    mib: float
    spread_mib: float

    @property
    def is_stable(self) -> bool:
        """Whether the samples agree within NOISE_MIB, so that no CUDA context came or went."""
        return self.spread_mib <= NOISE_MIB


def baseline(curve: Curve, start_s: float) -> Baseline:
    """Return the baseline of the second before `start_s`.

    Raises EvaluationError when no sample was taken in it.
    """
    used_mib = curve.between(start_s - BASELINE_S, start_s).used_mib
    if not len(used_mib):
        raise EvaluationError(f"no GPU sample in the {BASELINE_S:g} s before the start")
    return Baseline(float(np.median(used_mib)), float(np.ptp(used_mib)))


@dataclass(frozen=True)
class Usage:
    """What one run used of a GPU, from start to finish; net means minus the baseline.

    Memory below the baseline counts as negative: nothing is clipped.
    """

    baseline_mib: float
    baseline_spread_mib: float
    peak_mib: float  # net; a lower bound: a peak between two samples is missed
    raw_peak_mib: float  # the same without the baseline subtracted, so a lower bound as well
    area_mib_s: float  # net
    first_use_s: float | None  # start to the first sample above baseline + NOISE_MIB; None: never
    samples: int  # taken between start and finish
    # Gaps between neighbouring samples, those across start and finish included.
    interval_p50_s: float
    interval_p99_s: float
    interval_max_s: float
    # Finish to the first sample within NOISE_MIB of the baseline, 0 if memory was there at the
    # finish already; None: not within the samples.
    tail_s: float | None
    tail_area_mib_s: float  # net, until then, or until the last sample


def measure(curve: Curve, start_s: float, finish_s: float, before: Baseline) -> Usage:
    """Return what a run from start_s to finish_s used.

    curve: covers the run, and as much after it as shall be searched for the tail's end. The area
    is the trapezoid rule over the real stamps with interpolated ends. Raises EvaluationError when
    the curve does not cover the run, or the run does not end after it starts.
    """
    if not start_s < finish_s:
        raise EvaluationError(f"a run from {start_s:.3f} to {finish_s:.3f} s cannot be measured")
    times_s, used_mib = _clip(curve, start_s, finish_s)
    inside = curve.between(start_s, finish_s)
    # A run that fits between two samples still has its interpolated ends.
    raw_peak_mib = float((inside.used_mib if len(inside) else used_mib).max())
    risen = inside.t_s[inside.used_mib - before.mib > NOISE_MIB]
    p50_s, p99_s, max_s = _intervals(curve, start_s, finish_s)
    tail_s, tail_area_mib_s = _tail(curve, finish_s, before.mib)
    return Usage(
        baseline_mib=before.mib,
        baseline_spread_mib=before.spread_mib,
        peak_mib=raw_peak_mib - before.mib,
        raw_peak_mib=raw_peak_mib,
        area_mib_s=float(np.trapezoid(used_mib - before.mib, times_s)),
        first_use_s=float(risen[0] - start_s) if len(risen) else None,
        samples=len(inside),
        interval_p50_s=p50_s,
        interval_p99_s=p99_s,
        interval_max_s=max_s,
        tail_s=tail_s,
        tail_area_mib_s=tail_area_mib_s,
    )


def area_above(
    curve: Curve, start_s: float, finish_s: float, baseline_mib: float, level_mib: float
) -> float:
    """Return the integral of max(0, used - baseline - level) in MiB s, as FLARE tolerates a level.

    Exact for the piecewise linear curve: a segment that crosses the level counts from the crossing.
    Raises EvaluationError when the curve does not cover the run.
    """
    times_s, used_mib = _clip(curve, start_s, finish_s)
    excess_mib = used_mib - baseline_mib - level_mib
    left, right = excess_mib[:-1], excess_mib[1:]
    above = np.maximum(left, 0) + np.maximum(right, 0)
    # Where both ends are above the level, all of the segment is; where one is, the part of its
    # length that its height has of the whole rise or fall.
    share = np.ones_like(above)
    crossing = (left > 0) != (right > 0)
    share[crossing] = above[crossing] / np.abs(right - left)[crossing]
    return float(np.sum(above / 2 * share * np.diff(times_s)))


def flare_numbers(curve: Curve, start_s: float, end_s: float) -> tuple[float, float]:
    """Return (flare_max_gpu_mb, flare_auc_gpu_time) as FLARE24's Efficiency.py and load_json.py do.

    Their poller asks for the whole GPU's total - free, in MiB and without a baseline, sleeps 0.1 s
    after each answer, and starts again. Its clock is followed here, with the answer and the
    duration of the sample that was under way or came next. MaxGPU_Mem = round(max), AUC_GPU_Time =
    round(sum * 0.1) whatever the true spacing; both are whole numbers, halves to even.
    start_s, end_s: of the whole `docker run`. Raises EvaluationError when there is no sample.
    """
    memory_mib = []
    clock_s = start_s
    while clock_s <= end_s:
        # Looked up on their clock, not on ours: waiting for our next tick each time would turn
        # their 0.101 s into 0.12 s at a sampling interval of 20 ms, and 0.2 s at 100 ms.
        i = int(np.searchsorted(curve.after_s, clock_s))
        if i == len(curve):
            break
        memory_mib.append(float(curve.total_mib[i] - curve.free_mib[i]))
        clock_s += float(curve.after_s[i] - curve.before_s[i]) + FLARE_INTERVAL_S
    if not memory_mib:
        raise EvaluationError("no GPU sample for the organisers' numbers")
    area = sum(memory_mib) * FLARE_INTERVAL_S
    return float(np.round(max(memory_mib))), float(np.round(area))


def thinned(t_s: Floats, values: Floats, columns: int) -> tuple[Floats, Floats]:
    """Return the first, lowest, highest and last sample of each of `columns` equal intervals.

    Drawn at that width they look like all samples: no peak is lost, however short.
    """
    if t_s.size <= 4 * columns:
        return t_s, values
    column = np.floor((t_s - t_s[0]) / (t_s[-1] - t_s[0]) * columns)
    starts = np.flatnonzero(np.diff(column, prepend=-1.0))
    by_value = np.lexsort((values, column))  # columns stay where they are, sorted inside
    ends = np.append(starts[1:], t_s.size) - 1
    kept = np.unique(np.concatenate((starts, ends, by_value[starts], by_value[ends])))
    return t_s[kept], values[kept]


def _clip(curve: Curve, start_s: float, finish_s: float) -> tuple[Floats, Floats]:
    """Return times and used memory from start to finish, both ends interpolated."""
    t_s = curve.t_s
    if not len(t_s) or not t_s[0] <= start_s <= finish_s <= t_s[-1]:
        covered = f"{t_s[0]:.3f} to {t_s[-1]:.3f} s" if len(t_s) else "nothing"
        raise EvaluationError(
            f"GPU samples cover {covered}, not the run from {start_s:.3f} to {finish_s:.3f} s"
        )
    inside = (t_s > start_s) & (t_s < finish_s)
    times_s = np.concatenate(([start_s], t_s[inside], [finish_s]))
    return times_s, np.interp(times_s, t_s, curve.used_mib)


def _intervals(curve: Curve, start_s: float, finish_s: float) -> tuple[float, float, float]:
    t_s = curve.t_s
    first = int(np.searchsorted(t_s, start_s, side="right")) - 1
    last = int(np.searchsorted(t_s, finish_s, side="left"))
    gaps_s = np.diff(t_s[first : last + 1])
    p50_s, p99_s = np.percentile(gaps_s, (50, 99))
    return float(p50_s), float(p99_s), float(gaps_s.max())


def _tail(curve: Curve, finish_s: float, baseline_mib: float) -> tuple[float | None, float]:
    limit_mib = baseline_mib + NOISE_MIB
    t_s = curve.t_s
    if np.interp(finish_s, t_s, curve.used_mib) <= limit_mib:
        return 0.0, 0.0
    back = t_s[(t_s >= finish_s) & (curve.used_mib <= limit_mib)]
    end_s = float(back[0]) if len(back) else float(t_s[-1])
    times_s, used_mib = _clip(curve, finish_s, end_s)
    area_mib_s = float(np.trapezoid(used_mib - baseline_mib, times_s))
    return (float(end_s - finish_s) if len(back) else None), area_mib_s
