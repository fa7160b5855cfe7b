"""Says on a terminal, or in a log file, how far a run is."""

import time
from typing import TextIO

from evaluation.record import Record
from evaluation.states import State
from volumes.command import ERASE_LINE
from volumes.text import one_line

REDRAW_S = 0.5


class Progress:
    """One line for each case that is done; on a terminal also one that lives while a case runs."""

    def __init__(self, stream: TextIO, total: int) -> None:
        self._stream, self._total = stream, total
        self._live = stream.isatty()
        self._done = self._measured = 0
        self._case, self._began_s, self._drawn_s = "", 0.0, 0.0
        self._start_s = time.monotonic()

    def began(self, case: str) -> None:
        """A case starts running."""
        self._case, self._began_s, self._drawn_s = case, time.monotonic(), 0.0
        self.tick()

    def tick(self) -> None:
        """Time passes while the case runs."""
        now = time.monotonic()
        if not self._live or now - self._drawn_s < REDRAW_S:
            return
        self._drawn_s = now
        self._write(f"{self._head()} {self._case:20} running {now - self._began_s:6.0f} s", "")

    def ended(self, record: Record, *, measured: bool) -> None:
        """A case is done; measured: now, not by an earlier run."""
        self._done += 1
        self._measured += measured
        parts = [f"{record.case:20} {record.state:13}"]
        if record.usage is not None:
            parts.append(f"{record.usage.runtime_s:7.1f} s")
        if record.vram is not None:
            parts.append(
                f"{record.vram.peak_vram_mib:6.0f} MiB {record.vram.area_mib_s:8.0f} MiB s"
            )
        if record.accuracy is not None:
            parts.append(f"DSC {record.accuracy.dsc:.3f} NSD {record.accuracy.nsd:.3f}")
        if not measured:
            parts.append("from an earlier run")
        if record.vram is not None and record.vram.contaminated:
            parts.append("contaminated")
        if record.state is not State.OK or record.message:
            parts.append(record.message)
        self._write(f"{self._head()} {'  '.join(parts)}", "\n")

    def say(self, text: str) -> None:
        """Something else is worth a line."""
        self._write(text, "\n")

    def _head(self) -> str:
        left = self._total - self._done
        if self._measured and left:
            eta_s = (time.monotonic() - self._start_s) / self._measured * left
            return f"[{self._done:3}/{self._total}] ETA {_clock(eta_s)}"
        return f"[{self._done:3}/{self._total}]{'':13}"

    def _write(self, line: str, end: str) -> None:
        # Clear what the live line has left of a longer one.
        start = ERASE_LINE if self._live else ""
        print(f"{start}{one_line(line)}", end=end, file=self._stream, flush=True)


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60:2}:{minutes % 60:02}:{s:02}"
