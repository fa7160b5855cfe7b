"""Who is told what happens to a scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Listener:
    """``on_window(done, of)`` counts windows; ``say`` and ``warn`` get a line for the user."""

    on_window: Callable[[int, int], None]
    say: Tell
    warn: Tell


SILENT = Listener(lambda done, of: None, lambda line: None, lambda line: None)
