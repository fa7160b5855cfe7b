"""Runs one command and writes what it took: ``python launch.py RESULT COMMAND...``.

A process of its own, and a small one, because a child's peak memory begins with what its parent
had at the fork. RESULT becomes {start_s, finish_s, cpu_s, peak_rss_mib, exit_code}: stamps of
CLOCK_MONOTONIC, processor time, and the peak of the largest process of those that ended and were
waited for.
"""

import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Run the command and write the result."""
    result, *command = sys.argv[1:]
    start_s = time.monotonic()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    finish_s = time.monotonic()
    found = {
        "start_s": start_s,
        "finish_s": finish_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_rss_mib": usage.ru_maxrss / 1024,
        "exit_code": os.waitstatus_to_exitcode(status),
    }
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
