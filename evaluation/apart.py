"""Calls that may crash or never end, in a process of their own: `python -m evaluation.apart PID`.

What is scored and drawn are strangers' files. One that a library stumbles over costs its own case,
and nothing else. A process serves one call after the other; after a call that it does not survive
another one takes its place. It ends with the process PID, which started it.
"""

import contextlib
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from evaluation.errors import EvaluationError
from evaluation.parent import end_with
from evaluation.runners import short_line
from evaluation.scratch import Check

LIMIT_S = 600.0  # for one call: to score the largest scan there is takes a tenth of that
TICK_S = 0.1

Result = TypeVar("Result")


class CallFailed(Exception):
    """A call has raised what it should not, crashed, or not ended; the text is one line."""


class Apart:
    """A process for one call at a time, started when there is one to make."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def call(
        self, function: Callable[..., Result], *arguments: Any, check: Check = lambda: None
    ) -> Result:
        """Return what a module's function returns; an EvaluationError that it raises is raised.

        Raises CallFailed for whatever else becomes of it within LIMIT_S.
        """
        if self._process is None or self._process.poll() is not None:
            self._process = _started()
        try:
            error, result = _answer(self._process, pickle.dumps((function, arguments)), check)
        except BaseException:
            self.close()
            raise
        if error is not None:
            raise error if isinstance(error, EvaluationError) else CallFailed(short_line(error))
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process, whatever it is at."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def each(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]]
) -> Iterator[Result | CallFailed]:
    """Yield, in order, what a function returns for each job's arguments, or why it does not.

    There must be at least one job; there are as many processes as cores. An EvaluationError that
    the function raises is raised here. Whatever ends this, ends what is under way.
    """
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    stopping = threading.Event()
    idle: queue.SimpleQueue[Apart] = queue.SimpleQueue()

    def check() -> None:
        if stopping.is_set():
            raise CallFailed("given up")

    def one(job: tuple[Any, ...]) -> Result | CallFailed:
        apart = idle.get()
        try:
            return apart.call(function, *job, check=check)
        except CallFailed as failure:
            return failure
        finally:
            idle.put(apart)

    with contextlib.ExitStack() as held, ThreadPoolExecutor(workers) as pool:
        for _ in range(workers):
            idle.put(held.enter_context(contextlib.closing(Apart())))
        try:
            yield from pool.map(one, jobs)
        finally:
            stopping.set()


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "evaluation.apart", str(os.getpid())],
        # The same modules, wherever this process has gone since it began.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # What a terminal sends is for the process that waits.
        start_new_session=True,
    )


def _answer(process: subprocess.Popen[bytes], asked: bytes, check: Check) -> tuple[Any, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    deadline_s = time.monotonic() + LIMIT_S
    try:
        process.stdin.write(asked)
        process.stdin.flush()
        while not select.select([process.stdout], [], [], TICK_S)[0]:
            check()
            if time.monotonic() > deadline_s:
                raise CallFailed(f"did not end within {LIMIT_S:g} s")
        return pickle.load(process.stdout)  # type: ignore[no-any-return]
    except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
        raise CallFailed(_how_it_ended(process.wait())) from error


def _how_it_ended(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, perhaps for memory"
    return f"its process crashed ({signal.Signals(-code).name if code < 0 else f'code {code}'})"


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    try:
        return None, function(*arguments)
    except EvaluationError as error:
        return error, None
    except Exception as error:
        return f"{type(error).__name__}: {error}", None


def main(arguments: Sequence[str]) -> int:
    """Serve calls from standard input until it is closed."""
    end_with(int(arguments[0]))
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    while True:
        try:
            call = pickle.load(sys.stdin.buffer)
        except EOFError:
            return 0
        pickle.dump(_outcome(*call), answers)
        answers.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
