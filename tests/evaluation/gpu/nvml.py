"""A GPU that is not there: nvml.c under the real nvidia-ml-py, with a memory curve known exactly.

    library = compile_library(folder)
    gpu = FakeNvml(folder, library)
    for name, value in gpu.environment().items():
        monkeypatch.setenv(name, value)          # for the processes started from now on
    played = gpu.play([Segment(2.0, 500, 500)])  # at any time, also while something samples
    played.area_mib_s(), played.peak_mib()       # what a measurement must find

Everything may be changed while it is being sampled: files are replaced whole.
"""

import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_name("nvml.c")


class Segment(NamedTuple):
    """Memory added to a device's idle level for a while, changing linearly."""

    seconds: float
    from_mib: float
    to_mib: float


class FakeDevice(NamedTuple):
    """One GPU; parent: the number of the GPU that it is a MIG instance of. Total 0: it is lost."""

    uuid: str
    total_mib: float = 24576.0
    idle_mib: float = 300.0
    parent: int = -1
    name: str = "Stand-in GPU"


class FakeProcess(NamedTuple):
    """One line of NVML's lists; kind: c(ompute), g(raphics), m(ps), x (ended); mib -1: N/A."""

    pid: int
    mib: float
    kind: str = "c"
    accounted_mib: float = -1


@dataclass(frozen=True)
class Played:
    """A curve as it is replayed: from start_s on, CLOCK_MONOTONIC; idle before and after."""

    segments: tuple[Segment, ...]
    start_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + sum(segment.seconds for segment in self.segments)

    def area_mib_s(self) -> float:
        """Above idle, from start to end."""
        return sum(s.seconds * (s.from_mib + s.to_mib) / 2 for s in self.segments)

    def peak_mib(self) -> float:
        """Above idle."""
        return max(max(s.from_mib, s.to_mib) for s in self.segments)


@dataclass
class FakeNvml:
    """The driver that processes see under `environment`; `update` changes its fields.

    fail_code: the answer of the fail_call-th memory call of a process and of all later ones.
    init_code: nvmlInit's answer. lost_s, hang_s: stamps from which the GPUs are lost, or calls
    hang. api: "v1" lacks the v2 call. built: what `compile_library` returned.
    """

    folder: Path
    built: Path
    devices: Sequence[FakeDevice] = (FakeDevice("GPU-1"),)
    reserved_mib: float = 500.0
    latency_s: float = 0.0
    api: str = "v2"
    accounting: bool = False
    init_code: int = 0
    fail_call: int = 0
    fail_code: int = 0
    lost_s: float | None = None
    hang_s: float | None = None
    _played: Played = field(default=Played((), 0.0), init=False)

    def __post_init__(self) -> None:
        self.update()

    def environment(self) -> dict[str, str]:
        """What a process needs to meet this driver; nvidia-ml-py loads it by its bare name."""
        return {"LD_LIBRARY_PATH": str(self.built.parent), "FAKE_NVML": str(self.folder)}

    def play(self, segments: Sequence[Segment], start_s: float | None = None) -> Played:
        """Replay segments on the first device, from start_s (default: now) on."""
        self._played = Played(tuple(segments), time.monotonic() if start_s is None else start_s)
        self.update()
        return self._played

    def list_processes(self, processes: Sequence[FakeProcess]) -> None:
        """Let these be on every device from now on."""
        lines = [f"{p.pid} {p.kind} {p.mib} {p.accounted_mib}" for p in processes]
        self._replace("processes", lines)

    def update(self, **changes: object) -> None:
        """Change fields; processes see them at once."""
        for name, value in changes.items():
            setattr(self, name, value)
        lines = [
            f"device {d.uuid} {d.total_mib} {d.idle_mib} {d.parent} {d.name}" for d in self.devices
        ]
        lines += [f"play {self._played.start_s!r}"]
        lines += [f"segment {s.seconds!r} {s.from_mib} {s.to_mib}" for s in self._played.segments]
        lines += [f"reserved {self.reserved_mib}", f"latency {self.latency_s}"]
        lines += [f"api {self.api[1:]}", f"accounting {int(self.accounting)}"]
        lines += [f"init {self.init_code}", f"fail {self.fail_call} {self.fail_code}"]
        lines += [f"lost {self.lost_s!r}"] if self.lost_s is not None else []
        lines += [f"hang {self.hang_s!r}"] if self.hang_s is not None else []
        self._replace("script", lines)

    def _replace(self, name: str, lines: list[str]) -> None:
        part = self.folder / f".{name}"
        part.write_text("".join(f"{line}\n" for line in lines))
        part.replace(self.folder / name)


def compile_library(folder: Path) -> Path:
    """Compile nvml.c into `folder`; return the library. Skips the test without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) for the stand-in NVML library")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-std=c11", "-Wall", "-Wextra", "-O1", "-shared", "-fPIC"]
    command += [f"-Wl,-soname,{library.name}", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    return library
