"""Runs a function on many jobs, in as many processes as there are cores."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def each(function: Callable[[Job], Result], jobs: Sequence[Job]) -> Iterator[Result]:
    """Yield `function` of every job, in order; there must be at least one job.

    What the function raises is raised here, and so is KeyboardInterrupt, here alone: then what is
    under way is waited for, and nothing else is begun.
    """
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        # A terminal's Ctrl-C reaches every process. A worker that is started while it is ignored
        # goes on ignoring it, from its first instruction on, and leaves it to us.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            results = pool.map(function, jobs)
        finally:
            signal.signal(signal.SIGINT, before)
        yield from results
