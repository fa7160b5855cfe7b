"""benchmarks.memory: what is left of a peak without the voxels."""

from __future__ import annotations

from benchmarks.machine import Run
from benchmarks.memory import table


def test_medians_without_the_voxels_and_the_range() -> None:
    def runs(*rest_mib: float) -> list[Run]:  # of 100 slices, which hold 50 MiB
        return [Run(9.0, cpu_s, "", 50 + mib) for cpu_s, mib in enumerate(rest_mib)]

    text = table({100: {"": runs(310, 300, 340), ", blocks mapped": runs(280, 270, 275)}}, "abc", 3)
    assert "app abc;" in text
    assert "median of 3" in text
    assert "| slices | MiB | CPU s | MiB, blocks mapped | CPU s, blocks mapped |" in text
    assert "| 100 | 310 (300 to 340) | 1.0 | 275 (270 to 280) | 1.0 |" in text
