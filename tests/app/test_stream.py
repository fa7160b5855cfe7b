"""app.stream: threads, clocks and orders, without a scan."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from app.clock import StageClock
from app.preprocess import has_slabs
from app.resample import separated_axis
from app.stream import check_finite
from app.write_behind import write_behind

SPACING = (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("spacing", "transpose", "force", "streams"),
    [
        (SPACING, (0, 1, 2), None, True),
        ((6.0, 1.5, 1.5), (0, 1, 2), None, True),  # sections along z, as nearly always
        ((1.5, 6.0, 1.5), (0, 1, 2), None, False),
        ((1.5, 6.0, 1.5), (0, 1, 2), False, True),
        ((1.5, 6.0, 1.5), (1, 0, 2), None, True),
        ((6.0, 1.5, 1.5), (2, 0, 1), None, False),
        ((2.0, 2.0, 2.5), (0, 1, 2), True, False),
    ],
)
def test_what_streams(
    spacing: tuple[float, float, float],
    transpose: tuple[int, int, int],
    force: bool | None,
    streams: bool,
) -> None:
    axes = [spacing[i] for i in transpose]
    assert has_slabs(separated_axis(axes, SPACING, force)) is streams


def test_finite() -> None:
    logits = torch.zeros((1, 2, 3, 3))
    assert check_finite(logits) is logits
    for bad in (torch.nan, torch.inf, -torch.inf):
        logits[0, 1, 2, 2] = bad
        with pytest.raises(ValueError, match="not finite; check its weights"):
            check_finite(logits)


class TestWritingBehind:
    def test_the_parts_arrive_in_order_while_others_are_made(self) -> None:
        written: list[int] = []
        seen: list[int] = []

        def parts() -> Iterator[int]:
            for number in range(20):
                yield number
                seen.append(number - len(written))

        def write(arriving: Iterator[int]) -> None:
            assert threading.current_thread() is not threading.main_thread()
            for number in arriving:
                time.sleep(0.002)
                written.append(number)

        write_behind(parts(), write)
        assert written == list(range(20))
        assert max(seen) <= 4  # two wait, one is being written, one has just been made

    def test_a_part_that_cannot_be_made(self) -> None:
        cleaned: list[int] = []

        def parts() -> Iterator[int]:
            yield from range(3)
            raise ValueError("no more")

        def write(arriving: Iterator[int]) -> None:
            written: list[int] = []
            try:
                written.extend(arriving)
            finally:
                cleaned.append(len(written))

        with pytest.raises(ValueError, match="no more"):
            write_behind(parts(), write)
        assert len(cleaned) == 1

    @pytest.mark.parametrize("after", [0, 1, 5])
    def test_a_part_that_cannot_be_written(self, after: int) -> None:
        made: list[int] = []

        def parts() -> Iterator[int]:
            for number in range(1000):
                made.append(number)
                yield number
                time.sleep(0.001)

        def write(arriving: Iterator[int]) -> None:
            for _ in range(after):
                next(arriving)
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            write_behind(parts(), write)
        assert len(made) < 900

    def test_the_last_part_cannot_be_written(self) -> None:
        def write(arriving: Iterator[int]) -> None:
            assert list(arriving) == [0, 1]
            raise OSError("disk full")

        with pytest.raises(OSError, match="disk full"):
            write_behind(iter(range(2)), write)


def test_a_stage_does_not_count_what_it_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = StageClock()

    def read() -> Iterator[int]:
        for number in range(3):
            passes(1)
            yield number
        passes(0.5)

    def network(slabs: Iterator[int]) -> Iterator[int]:
        for number in slabs:
            passes(10)
            yield number

    passes(1000)
    with clock.stage("write"):
        for _ in clock.timed("network", network(clock.timed("preprocess", read()))):
            passes(100)
    passes(1000)
    assert clock.laps == {"preprocess": 3.5, "device": 0, "network": 30, "restore": 0, "write": 300}
    assert list(clock.laps) == ["preprocess", "device", "network", "restore", "write"]


def test_an_interrupt_while_the_thread_starts_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def write(parts: Iterator[int]) -> None:
        try:
            list(parts)
        except Exception:  # what it cleans up for
            ended.set()
            raise

    original = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        original(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        write_behind(iter([1, 2]), write)
    assert ended.wait(10)
