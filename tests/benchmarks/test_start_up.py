"""benchmarks.start_up: medians, shares, and what it needs."""

from __future__ import annotations

import pytest

from benchmarks import start_up
from benchmarks.start_up import Program, Start


def test_medians_and_the_share_of_each() -> None:
    programs = [Program("app", {}, ""), Program("previous", {}, "")]
    starts = {
        "app": [Start(0.3, 0.5, 1.0, 1.5, 300), Start(0.4, 0.4, 1.0, 1.4, 320)] * 2,
        "previous": [Start(0.7, 0.9, 1.0, 2.0, 400)],
    }
    text = start_up._table(programs, starts, "abc", 4)
    assert "app abc;" in text
    assert "medians of 4 cold processes" in text
    assert "| importing torch, CPU s | 0.35 | 0.70 (0.50x) |" in text
    assert "| process start to first window, s | 0.45 | 0.90 (0.50x) |" in text
    assert "| peak RSS, MiB | 310 | 400 (0.78x) |" in text


def test_without_a_list_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start_up, "left_out", dict)
    assert start_up.main([]) == 1
    assert "make install" in capsys.readouterr().err
