from __future__ import annotations

import sys

import pytest

from benchmarks.machine import measured


def test_measured_says_what_was_printed_how_long_it_took_and_the_peak() -> None:
    ours = bytearray(b"x") * 2**28  # what this process holds does not count
    run = measured([sys.executable, "-c", "import time; time.sleep(0.2); print('done')"], {})
    assert run.output == "done\n"
    assert run.wall_s > 0.2
    assert 0 < run.peak_rss_mib < 64 < len(ours) / 2**20
    grows = measured([sys.executable, "-c", "b = bytearray(b'x') * 2**27"], {})
    assert 128 < grows.peak_rss_mib < 192


def test_a_failure_is_said_with_the_end_of_the_output() -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3 .*sorry"):
        measured([sys.executable, "-c", "print('sorry'); raise SystemExit(3)"], {})
