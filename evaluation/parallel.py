"""Runs a function on many jobs, in as many processes as there are cores."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from evaluation.errors import EvaluationError
from evaluation.parent import end_with

Job = TypeVar("Job")
Result = TypeVar("Result")


def parallel_map(function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
    """Yield `function` of every job, in order; there must be at least one job.

    What the function raises is raised here, and so is KeyboardInterrupt, here alone: then what is
    under way is waited for, and nothing else is begun.
    """
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=end_with, initargs=(os.getpid(),)
    ) as pool:
        # A terminal's Ctrl-C reaches every process. A worker that is started while it is ignored
        # goes on ignoring it, from its first instruction on, and leaves it to us.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            results = pool.map(function, jobs)
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            yield from results
        except BrokenProcessPool as error:
            raise EvaluationError(
                "a worker process was killed, perhaps for memory; free some and start again"
            ) from error
