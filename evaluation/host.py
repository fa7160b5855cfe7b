"""The machine that this runs on, as results and benchmarks name it."""

import os
import platform
from pathlib import Path

from volumes import VERSION


def description() -> str:
    """CPU, cores that this process may use, and memory, in words."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown CPU",
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory_gib:.0f} GiB"


def facts() -> dict[str, object]:
    """What a record says of the machine and of this tool."""
    return {
        "tool_version": VERSION,
        "machine": description(),
        "kernel": platform.release(),
        "hostname": platform.node(),
    }
