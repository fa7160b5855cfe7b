"""Ends a process together with the one that started it, however that one ends."""

import os
import threading
import time
from collections.abc import Callable

INTERVAL_S = 0.25  # between two looks


def end_with(parent_pid: int, and_before: Callable[[], object] = lambda: None) -> None:
    """End this process soon after its parent, even if that is killed; `and_before` is called first.

    Asked for rather than told: the kernel's PR_SET_PDEATHSIG comes already when the thread that
    started the process ends, and a pipe stays open in whatever the parent forked besides. A thread
    goes on while a call into a driver hangs, since ctypes lets go of the interpreter.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(INTERVAL_S)
        and_before()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
