"""Who was on the GPU besides the submission. Pure: events and samples in, sentences out."""

import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from evaluation.gpu.curve import Baseline


@dataclass(frozen=True)
class GpuProcess:
    """One process that NVML listed on a GPU, compute, graphics or MPS, within a span of time.

    pid: the host's. name, session (its session id), cgroup (the text of /proc/PID/cgroup, which
    holds the container's id): read when it was first seen; None when it was gone by then, or where
    the harness itself runs in another PID namespace. first_seen_s: on the GPU at all; last_seen_s:
    within the span; both CLOCK_MONOTONIC. largest_mib: the most that NVML reported for it within
    the span, None where it reports none (WSL2); managed memory is not in it. accounted_mib: the
    most it ever held, from accounting mode, None where that is off or the process had not ended.
    """

    pid: int
    name: str | None
    session: int | None
    cgroup: str | None
    first_seen_s: float
    last_seen_s: float
    largest_mib: float | None
    accounted_mib: float | None


def foreign(
    processes: Iterable[GpuProcess], owned: Callable[[GpuProcess], bool]
) -> list[GpuProcess]:
    """Return the processes that are not the submission's, by the caller's judgement.

    One without any memory counts too, and so does one that was there before, such as an X server
    with a few MiB: it may draw at any moment. The run is flagged for it, not stopped.
    """
    return [process for process in processes if not owned(process)]


def contamination(others: Iterable[GpuProcess], before: Baseline) -> list[str]:
    """Return why a measurement is not the submission's alone, one sentence a reason; none: [].

    others: see `foreign`.
    """
    reasons = [f"another process ({_describe(process)}) was on the GPU" for process in others]
    if not before.is_stable:
        reasons.append(
            f"the baseline moved by {before.spread_mib:.0f} MiB in the second before the start"
        )
    return reasons


def _describe(process: GpuProcess) -> str:
    parts = [f"PID {process.pid}", process.name or "name unknown"]
    size_mib = process.largest_mib
    parts.append("memory unknown" if size_mib is None else f"{size_mib:.0f} MiB")
    return ", ".join(parts)


@dataclass
class _Track:
    """One process over all time; times_s and sizes run in parallel, a size of None is N/A."""

    identity: dict[str, Any]
    times_s: list[float] = field(default_factory=list)
    sizes: list[int | None] = field(default_factory=list)
    most_bytes: int | None = None


class Sightings:
    """Everything seen on one GPU so far, fed with the events that poller.py describes."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._newest: dict[int, _Track] = {}  # by PID: the latest process to have it

    def add(self, event: dict[str, Any]) -> None:
        """Take in one event, in the order they were written; other kinds are passed over."""
        match event["kind"]:
            case "process":
                self._appeared(event)
            case "processes":
                for pid, size in event["bytes"].items():
                    track = self._newest[int(pid)]
                    track.times_s.append(event["t_s"])
                    track.sizes.append(size)
            case "ended":
                self._newest[event["pid"]].most_bytes = event["most_bytes"]

    def _appeared(self, event: dict[str, Any]) -> None:
        old = self._newest.get(event["pid"])
        ticks = event["started_ticks"]
        # It may have left the GPU for a while; the same PID alone does not make it the same one.
        if old is None or ticks is None or old.identity["started_ticks"] != ticks:
            self._newest[event["pid"]] = _Track(event)
            self._tracks.append(self._newest[event["pid"]])

    def between(self, since_s: float, until_s: float) -> list[GpuProcess]:
        """Return the processes that were seen within [since_s, until_s], in order of appearance."""
        found = []
        for track in self._tracks:
            first = bisect.bisect_left(track.times_s, since_s)
            last = bisect.bisect_right(track.times_s, until_s)
            if first == last:
                continue
            sizes = [size for size in track.sizes[first:last] if size is not None]
            found.append(
                GpuProcess(
                    pid=track.identity["pid"],
                    name=track.identity["name"],
                    session=track.identity["session"],
                    cgroup=track.identity["cgroup"],
                    first_seen_s=track.times_s[0],
                    last_seen_s=track.times_s[last - 1],
                    largest_mib=max(sizes) / 2**20 if sizes else None,
                    accounted_mib=None if track.most_bytes is None else track.most_bytes / 2**20,
                )
            )
        return found
