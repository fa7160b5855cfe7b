from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from benchmarks.machine import measured, timed

ROOT = Path(__file__).resolve().parents[2]


def test_measured_says_what_was_printed_how_long_it_took_and_the_peak() -> None:
    # From a small process: this one may have become larger than what it measures.
    code = """
        import sys
        from benchmarks.machine import measured
        work = "import time; b = bytearray(b'x') * 2**28; time.sleep(0.2); print('done')"
        run = measured([sys.executable, "-c", work])
        assert run.output == "done\\n", run
        assert run.wall_s > 0.2, run
        assert 256 < run.peak_rss_mib < 300, run
    """
    timed([sys.executable, "-c", textwrap.dedent(code)], {"PYTHONPATH": str(ROOT)})


def test_a_peak_below_this_process_own_is_refused() -> None:
    with pytest.raises(RuntimeError, match="hidden by that of this process"):
        measured([sys.executable, "-c", "pass"])


def test_a_failure_is_said_with_the_end_of_the_output() -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3 .*sorry"):
        measured([sys.executable, "-c", "print('sorry'); raise SystemExit(3)"])
