"""A Docker engine of a test's own, which may be killed, and shares nothing with any other."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests import engine

START_S = 60.0


class OwnEngine:
    """From `with` on to its end; `host` is for DOCKER_HOST. Skips where it cannot be started."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            pytest.skip("only root can start an engine, where dockerd is installed")
        # A short path, as a socket's must be, and on a disk: overlays do not lie on each other.
        self._folder = Path(tempfile.mkdtemp(prefix="flare-own-", dir="/var/tmp"))
        self.host = f"unix://{self._folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.terminate()  # which ends its containerd, too
            self._process.wait()
        for process in Path("/proc").glob("[0-9]*"):  # what held containers of one that was killed
            with contextlib.suppress(OSError):
                if os.fsencode(self._folder) in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):  # each engine that was killed has left its own
            if Path(mount).is_relative_to(self._folder):
                subprocess.run(["umount", mount], check=True)
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        places = [f"--{name}={self._folder / name}" for name in ("data-root", "exec-root")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    # Its own network: it would remove the bridge of an engine beside it.
                    *(
                        "unshare",
                        "--net",
                        "dockerd",
                        f"--host={self.host}",
                        f"--pidfile={self._folder / 'pid'}",
                    ),
                    *places,
                    *("--bridge=none", "--iptables=false", "--ip6tables=false"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + START_S
        while self.docker("info").returncode:
            assert time.monotonic() < deadline_s, (self._folder / "log").read_text()[-4000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill it; its containers stay until it is started again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        # Its containerd ends with it. Where nobody waits for that one, a zombie has its number.
        (self._folder / "exec-root" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the docker command on it."""
        return engine.docker("--host", self.host, *arguments, check=False)

    def take(self, image: engine.Image) -> None:
        """Get an image from the engine that the other tests use."""
        tar = self._folder / "image.tar"
        engine.docker("save", "--output", tar, f"{image.name}:latest")
        self.docker("load", "--input", str(tar))
        tar.unlink()
