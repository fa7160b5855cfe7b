import io

from msgspec.structs import replace

from evaluation.progress import Progress
from evaluation.states import State
from tests.evaluation.records import RECORD, WITHOUT_GPU


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_one_line_a_case() -> None:
    out = io.StringIO()
    progress = Progress(out, 3)
    progress.began("case_1")
    progress.tick()
    progress.ended(RECORD, measured=True)
    failed = replace(WITHOUT_GPU, case="case_2", state=State.TIMEOUT, message="stopped at 45 s")
    progress.ended(failed, measured=True)
    progress.ended(replace(RECORD, case="case_3"), measured=False)
    first, second, third = out.getvalue().splitlines()
    assert first.startswith("[  1/3] ETA")
    for part in ("case_1", "ok", "12.0 s", "1234 MiB", "9000 MiB s", "DSC 0.812", "contaminated"):
        assert part in first
    assert "timeout" in second
    assert second.endswith("stopped at 45 s")
    assert "MiB" not in second
    assert third.startswith("[  3/3]  ")
    assert "from an earlier run" in third


def test_a_terminal_shows_the_case_that_runs() -> None:
    out = Terminal()
    progress = Progress(out, 2)
    progress.began("case_1")
    assert "case_1" in out.getvalue()
    assert "running" in out.getvalue()
    before = out.getvalue()
    progress.tick()
    assert out.getvalue() == before  # not redrawn 50 times a second
    progress.ended(RECORD, measured=True)
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().rpartition("\r\x1b[K")[2].startswith("[  1/2] ETA")
