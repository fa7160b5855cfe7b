"""Starts the process that samples one GPU (poller.py), watches it, and reads what it writes."""

import bisect
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evaluation.errors import EvaluationError
from evaluation.gpu import poller
from evaluation.gpu.curve import NOISE_MIB, Curve
from evaluation.gpu.processes import GpuProcess, Sightings

INTERVAL_S = 0.02
STALL_S = 5.0
START_S = 15.0  # NVML takes seconds to wake the GPUs of a machine without persistence mode
TAIL_S = 5.0
_STEP_S = 0.01
_KILL_S = 2.0
_ROOT = Path(__file__).resolve().parents[2]  # where `-m` finds this package, and no other
_BYTES = ("total", "free", "used", "reserved")
_RECORD = np.dtype([("before_s", "<f8"), ("after_s", "<f8"), *((name, "<u8") for name in _BYTES)])


class GpuLost(EvaluationError):
    """Nothing can be measured any more: the GPU, its driver or the sampling process is gone."""


class Sampler:
    """Samples one GPU's memory and processes from `start` (or `with`) until `stop`.

    uuid: of a GPU or a MIG instance. folder: receives samples.bin, events.jsonl and poller.log
    (formats: poller.py) and stays; one Sampler a folder. interval_s: between samples. stall_s: a
    gap this long means that NVML hangs. The process inherits the environment.
    """

    def __init__(
        self, uuid: str, folder: Path, *, interval_s: float = INTERVAL_S, stall_s: float = STALL_S
    ) -> None:
        self._uuid = uuid
        self._interval_s = interval_s
        self._stall_s = stall_s
        self._samples = folder / "samples.bin"
        self._events = folder / "events.jsonl"
        self._log = folder / "poller.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._events_read = 0  # bytes
        self._sightings = Sightings()
        self._nvml_error: str | None = None
        self._lost: str | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The sampling process. Raises ValueError before `start`."""
        return self._running().pid

    def start(self, timeout_s: float = START_S) -> None:
        """Start the process and return once the first sample is there.

        Raises EvaluationError with NVML's reason when there is none within timeout_s, or when the
        folder holds another Sampler's files.
        """
        self._samples.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._samples.touch(exist_ok=False)
        except FileExistsError as error:
            raise EvaluationError(f"{self._samples} exists: a folder holds one sampling") from error
        self._events.touch()
        self._process = self._spawn()
        try:
            self._await_first_sample(timeout_s)
        except BaseException:  # Ctrl-C too: `with` does not call __exit__ for what happens here
            self.stop()
            raise

    def _await_first_sample(self, timeout_s: float) -> None:
        give_up_s = time.monotonic() + timeout_s
        while not self._count():
            if self._running().poll() is not None:
                raise EvaluationError(f"GPU {self._uuid} cannot be sampled: {self._end_reason()}")
            if time.monotonic() > give_up_s:
                raise EvaluationError(
                    f"GPU {self._uuid} cannot be sampled: no answer from NVML in {timeout_s:g} s"
                )
            time.sleep(_STEP_S)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "evaluation.gpu.poller", self._uuid]
        command += ["--interval-s", repr(self._interval_s), "--parent-pid", str(os.getpid())]
        command += ["--samples", str(self._samples.resolve())]
        command += ["--events", str(self._events.resolve())]
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C at the terminal is for the parent, which then stops it.
            return subprocess.Popen(
                command,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End the process; what it wrote can still be read. Harmless when it has ended already."""
        if self._process is None:
            return
        self._process.kill()  # nothing to clean up: every record is written at once
        # One that hangs within the driver may not even be killed: it is not waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_S)

    def check(self) -> None:
        """Raise GpuLost when sampling has ended or stalled; then, too, the process is ended.

        Cheap enough (microseconds) to be called at any pace.
        """
        if self._lost is None:
            if self._running().poll() is not None:
                self._lost = self._end_reason()
            elif (gap_s := time.monotonic() - self._newest_s()) > self._stall_s:
                self._lost = f"no sample for {gap_s:.1f} s, so an NVML call hangs"
                self.stop()
        if self._lost is not None:
            raise GpuLost(f"GPU {self._uuid} was lost: {self._lost}")

    def curve(self, since_s: float, until_s: float) -> Curve:
        """Return the samples taken within [since_s, until_s] of CLOCK_MONOTONIC, and one around.

        The one before and the one after, where there are such, so that a run can be interpolated.
        """
        records = np.memmap(self._samples, _RECORD, mode="r", shape=(self._count(),))
        # bisect and not searchsorted, which would read all of the file.
        times_s = records["before_s"]
        first = max(bisect.bisect_left(times_s, since_s) - 1, 0)
        last = bisect.bisect_right(times_s, until_s) + 1
        return _to_curve(np.array(records[first:last]))

    def processes(self, since_s: float, until_s: float) -> list[GpuProcess]:
        """Return the processes on the GPU within [since_s, until_s], looked for every 0.2 s."""
        self._read_events()
        return self._sightings.between(since_s, until_s)

    def wait_for_baseline(
        self, baseline_mib: float, finish_s: float, timeout_s: float = TAIL_S
    ) -> bool:
        """Wait after a run until memory is within NOISE_MIB of the baseline; return whether it is.

        Returns at the latest timeout_s after finish_s, with a sample after finish_s in any case.
        Raises GpuLost.
        """
        while True:
            self.check()
            newest = _to_curve(np.array([self._newest()]))
            if newest.before_s[0] > finish_s:
                if newest.used_mib[0] <= baseline_mib + NOISE_MIB:
                    return True
                if newest.before_s[0] > finish_s + timeout_s:
                    return False
            time.sleep(_STEP_S)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ValueError("the sampler was not started")
        return self._process

    def _count(self) -> int:
        return self._samples.stat().st_size // _RECORD.itemsize

    def _newest(self) -> Any:
        with self._samples.open("rb", buffering=0) as file:
            file.seek((self._count() - 1) * _RECORD.itemsize)
            return np.frombuffer(file.read(_RECORD.itemsize), _RECORD)[0]

    def _newest_s(self) -> float:
        return float(self._newest()["after_s"])

    def _end_reason(self) -> str:
        self._read_events()
        if self._nvml_error is not None:
            return self._nvml_error
        lines = self._log.read_text(errors="replace").strip().splitlines()
        code = self._running().returncode
        return f"its sampling process ended with exit code {code} ({(lines or ['no output'])[-1]})"

    def _read_events(self) -> None:
        with self._events.open("rb") as file:
            file.seek(self._events_read)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._events_read += len(whole)
        for line in whole.splitlines():
            event = json.loads(line)
            if event["kind"] == "error":
                self._nvml_error = f"NVML says {event['text']!r} (code {event['code']})"
            self._sightings.add(event)


def _to_curve(records: NDArray[Any]) -> Curve:
    """Return records of shape (n,) as a curve: bytes become MiB, an unreported size NaN."""
    missing = records["reserved"] == poller.NOT_REPORTED
    total, free, used, reserved = (records[name] / 2**20 for name in _BYTES)
    return Curve(
        before_s=records["before_s"].copy(),
        after_s=records["after_s"].copy(),
        used_mib=used,
        free_mib=free,
        reserved_mib=np.where(missing, np.nan, reserved),
        total_mib=total,
    )
