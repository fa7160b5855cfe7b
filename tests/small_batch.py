"""A small batch: submissions as archives, cases, and the programs at work on them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.runners.docker import CASE_LABEL, OWNER_LABEL
from tests import engine
from tests.submissions import HEEDING, Behaviour, write_cases, write_submission

TIMEOUT_S = 300.0
# What differs between two runs of the same thing. A container of some 50 ms ends before it is read.
TIMES = ("runtime_s", "wall_s", "flare_time_s", "cpu_s", "peak_ram_mib", "measured_by")
PRELOAD = "DASK_DISTRIBUTED__WORKER__PRELOAD"


@dataclass
class SmallBatch:
    """One folder with submissions/, scans/, labels/ and results/; each program it starts ends."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.submissions = self.folder / "submissions"
        self.submissions.mkdir()
        self.output = self.folder / "results"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tls://127.0.0.1:{free.getsockname()[1]}"
        self.certificates = self.folder / "certificates"
        self.cluster = ("--scheduler", self.address, "--certificates", self.certificates)

    def write_cases(self, count: int) -> None:
        write_cases(self.folder, [f"case{i}" for i in range(count)])

    def add_image(self, team: str, behaviour: Behaviour) -> None:
        """Add a team's archive as `docker save` writes it; the engine keeps nothing of it."""
        source = write_submission(self.folder / "sources" / team, {"case": behaviour})
        built = engine.build_image(source)
        tar = self.folder / f"{team}.tar"
        try:
            engine.docker("tag", built.id, f"{team}:latest")
            engine.docker("save", "--output", tar, f"{team}:latest")
        finally:
            engine.remove_image(built)
        with tar.open("rb") as file, gzip.open(self._archive(team), "wb", 1) as packed:
            shutil.copyfileobj(file, packed)
        tar.unlink()

    def add_folder(self, team: str, behaviour: Behaviour) -> None:
        """Add a team's archive for workers that preload `tests.evaluation.batch.processes`."""
        source = write_submission(self.folder / "sources" / team, {"case": behaviour})
        with tarfile.open(self._archive(team), "w:gz", compresslevel=1) as tar:
            for part in source.iterdir():
                tar.add(part, part.name)

    def start(self, *options: object) -> subprocess.Popen[str]:
        """Start the command; without --scheduler it has workers of its own."""
        cases = ("--cases", self.folder / "scans", "--labels", self.folder / "labels")
        place = (self.submissions, *cases, "--output", self.output)
        return self._start("evaluation", "batch", *place, "--timeout", 60, *options)

    def scheduler(self) -> subprocess.Popen[str]:
        """Start a scheduler at the address of this batch."""
        host, port = self.address.removeprefix("tls://").split(":")
        place = ("--host", host, "--port", port)
        started = self._start("evaluation.batch.scheduler", self.certificates, *place)
        self.wait_for((self.certificates / "certificate.pem").exists)
        return started

    def workers(self, *options: object, **environment: str) -> subprocess.Popen[str]:
        """Start workers of this machine; environment: variables of theirs."""
        place = (self.address, "--certificates", self.certificates)
        return self._start("evaluation.batch.worker", *place, *options, **environment)

    def code(self, process: subprocess.Popen[str]) -> int:
        """Wait for a program's end; return its exit code."""
        self.wait_for(lambda: process.poll() is not None)
        return process.wait()

    def variables(self) -> dict[str, str]:
        """The environment of every program; locks of other batches are none of this one's."""
        return {**os.environ, "TMPDIR": str(self.folder / "tmp"), **self.environment}

    def end(self) -> None:
        """End whatever still runs, workers first with the chance to clean up."""
        while self.started:
            process = self.started.pop()
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def records(self) -> dict[str, dict[str, Any]]:
        """All records by TEAM/CASE."""
        paths = self.output.glob("*/cases/case*.json")
        return {f"{path.parts[-3]}/{path.stem}": json.loads(path.read_text()) for path in paths}

    def log(self) -> str:
        """What the programs have printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def wait_for(self, what: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline_s, self.log()
            time.sleep(0.02)

    def _archive(self, team: str) -> Path:
        return self.submissions / f"{team}.tar.gz"

    def _start(self, module: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        log = self.folder / f"{len(list(self.folder.glob('*.log'))):02}-{module}.log"
        with log.open("w") as sink:
            process = subprocess.Popen(
                [*HEEDING, sys.executable, "-m", module, *map(str, arguments)],
                cwd=engine.ROOT,
                env=self.variables() | environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.started.append(process)
        return process


def tables(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Each team's results.csv, times aside."""
    found = {}
    for path in sorted(folder.glob("*/results.csv")):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        found[path.parent.name] = [
            {name: value for name, value in row.items() if name not in TIMES} for row in rows
        ]
    return found


def containers() -> dict[str, int]:
    """The containers of any harness: the case of each, with the process that started it."""
    form = '{{.Label "' + CASE_LABEL + '"}} {{.Label "' + OWNER_LABEL + '"}}'
    listed = engine.docker(
        "ps", "--all", "--filter", f"label={OWNER_LABEL}", "--format", form
    ).stdout
    found = re.findall(r"(\S+) \S+?:\S+?:\S+?:(\d+):\d+", listed)
    return {case: int(pid) for case, pid in found}


def timed() -> set[int]:
    """The processes that time a container now."""
    return {pid for case, pid in containers().items() if case.startswith("case")}
