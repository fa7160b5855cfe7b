"""The process that samples one GPU: `python -m evaluation.gpu.poller UUID --samples FILE ...`.

A process of its own, because a thread shares its interpreter with whatever else runs there and
then samples late. It imports only the standard library and nvidia-ml-py. It appends
- to --samples: one RECORD per NVML memory call,
- to --events: JSON lines, each with "kind" and "t_s" (CLOCK_MONOTONIC): `started` {api,
  accounting}, `process` {pid, name, session, started_ticks, cgroup} when a PID appears on the GPU,
  `processes` {bytes: {pid: bytes or null}} at every look that finds any, `ended` {pid, most_bytes}
  when one is gone and accounting mode is on, `error` {code, text} before it ends with NVML_FAILED.
It ends with the process that started it, however that one ends.
"""

import argparse
import json
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

from evaluation.gpu import nvml
from evaluation.parent import end_with

# Stamps before and after the call; total, free, used, reserved bytes.
RECORD = struct.Struct("<ddQQQQ")
NOT_REPORTED = 2**64 - 1  # reserved bytes in NVML's v1 API
NVML_FAILED = 3  # exit code
PROCESSES_S = 0.2
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


class Log:
    """JSON lines, each written at once, so that a reader sees whole lines or none."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, _APPEND)

    def write(self, kind: str, **details: Any) -> None:
        """Append one event, stamped now."""
        event = {"kind": kind, "t_s": time.monotonic(), **details}
        _append(self._file, json.dumps(event).encode() + b"\n")


class Watch:
    """Who is on the GPU: logs processes as they appear, are there, and are gone."""

    def __init__(self, device: nvml.Device, log: Log) -> None:
        self._device = device
        self._log = log
        self._accounting = device.is_accounting()
        self._present: set[int] = set()
        log.write("started", api=device.api, accounting=self._accounting)

    def look(self) -> None:
        """Ask NVML once."""
        found = self._device.processes()
        for pid in found.keys() - self._present:
            # At once, for it may be gone at the next look.
            self._log.write("process", pid=pid, **identity(pid))
        if found:
            self._log.write("processes", bytes=found)
        for pid in self._present - found.keys() if self._accounting else ():
            self._log.write("ended", pid=pid, most_bytes=self._device.accounted(pid))
        self._present = set(found)


def identity(pid: int) -> dict[str, Any]:
    """Return {name, session, started_ticks, cgroup} of a process from /proc, None where unknown.

    started_ticks tells two processes with the same PID apart; cgroup is the file's text, which
    holds the container's id.
    """
    known: dict[str, Any] = dict.fromkeys(("name", "session", "started_ticks", "cgroup"))
    folder = Path("/proc") / str(pid)
    try:
        # "PID (name) state ppid pgrp session ...": the name may hold spaces and parentheses.
        before, _, after = (folder / "stat").read_text(errors="replace").rpartition(") ")
        numbers = after.split()
        known["name"] = before.partition("(")[2]
        known["session"] = int(numbers[3])
        known["started_ticks"] = int(numbers[19])
        known["cgroup"] = (folder / "cgroup").read_text(errors="replace")
    except OSError:
        pass  # gone already, or a PID of another namespace
    return known


def next_deadline(origin_s: float, interval_s: float, now_s: float) -> float:
    """Return the first point after now on the grid origin + k * interval.

    Deadlines are absolute, so lateness does not add up; those missed are skipped, not made up for.
    """
    return origin_s + (int((now_s - origin_s) / interval_s) + 1) * interval_s


def poll(uuid: str, interval_s: float, samples: Path, log: Log) -> None:
    """Sample until the process is ended. Raises NvmlError when a call fails.

    Both kinds of call share one thread: where listing processes takes longer than an interval, the
    samples' gaps show it, and where any call hangs, the samples stop, which is how it is noticed.
    """
    device = nvml.Device(uuid)
    watch = Watch(device, log)
    file = os.open(samples, _APPEND)
    origin_s = look_s = time.monotonic()
    while True:
        before_s = time.monotonic()
        memory = device.memory()
        after_s = time.monotonic()
        reserved = NOT_REPORTED if memory.reserved is None else memory.reserved
        sizes = (memory.total, memory.free, memory.used, reserved)
        _append(file, RECORD.pack(before_s, after_s, *sizes))
        if after_s >= look_s:
            watch.look()
            look_s = after_s + PROCESSES_S
        now_s = time.monotonic()
        time.sleep(next_deadline(origin_s, interval_s, now_s) - now_s)


def _append(file: int, content: bytes) -> None:
    if os.write(file, content) != len(content):
        raise OSError("a record could not be written whole: is the disk full?")


def main(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Samples one GPU's memory until it is ended.")
    parser.add_argument("uuid")
    parser.add_argument("--interval-s", type=float, required=True)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--parent-pid", type=int, required=True)
    chosen = parser.parse_args(arguments)
    end_with(chosen.parent_pid)
    log = Log(chosen.events)
    try:
        poll(chosen.uuid, chosen.interval_s, chosen.samples, log)
    except nvml.NvmlError as error:
        log.write("error", code=int(error.value), text=str(error))
    return NVML_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
