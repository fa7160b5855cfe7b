"""An engine that stops answering: a socket in front of the real one, which a test can freeze."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

DEFAULT = "unix:///var/run/docker.sock"
CHUNK = 1 << 16


class FreezableEngine:
    """While frozen, connections are accepted, and nothing goes through."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self._engine = os.environ.get("DOCKER_HOST", DEFAULT).removeprefix("unix://")
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.thaw()
        self._listener.close()

    def freeze(self) -> None:
        """Let nothing through from now on."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let everything through, also what has waited."""
        self._flowing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.socket(socket.AF_UNIX)
                theirs.connect(self._engine)
                for source, sink in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                self._flowing.wait()
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)
