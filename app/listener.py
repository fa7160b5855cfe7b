"""Who is told what happens to a scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Listener:
    """``on_window(done, of)`` counts windows; ``say`` and ``warn`` get a line for the user."""

    on_window: Callable[[int, int], None]
    say: Tell
    warn: Tell


class Tally:
    """One count of windows for several that count their own, ``windows`` of each at last."""

    def __init__(self, windows: Sequence[int], on_window: Callable[[int, int], None]) -> None:
        self._done, self._of, self._on_window = [0] * len(windows), sum(windows), on_window

    def part(self, number: int) -> Callable[[int, int], None]:
        """What the one of that number calls."""

        def on_window(done: int, of: int) -> None:
            del of
            self._done[number] = done
            self._on_window(sum(self._done), self._of)

        return on_window


SILENT = Listener(lambda done, of: None, lambda line: None, lambda line: None)
