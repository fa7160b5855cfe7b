"""25 teams with 400 cases each: a file that can be sent, and opens at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from evaluation.__main__ import main
from tests.evaluation.report.conftest import Reader
from tests.evaluation.report.simulated import simulate, write_pictures

TEAMS, CASES = 25, 400
LARGEST_MB, SLOWEST_S = 30, 2.0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "results"
    names = [f"team {number + 1}" for number in range(TEAMS)]
    simulate(folder, names, CASES)
    for name in names:
        write_pictures(folder / name, 4)
    assert main(["rank", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    return folder / "report.html"


def test_it_stays_small(large: Path) -> None:
    assert large.stat().st_size < LARGEST_MB * 1e6


def test_it_opens_at_once(reader: Reader, large: Path) -> None:
    start = time.perf_counter()
    reader.page.goto(large.as_uri())
    reader.page.locator("main h1").wait_for()
    expect(reader.page.locator("main figure svg")).to_have_count(4)
    assert time.perf_counter() - start < SLOWEST_S


def test_ten_thousand_cases_can_be_looked_through(reader: Reader, large: Path) -> None:
    page = reader.open(large, "#/cases")
    expect(page.locator(".said")).to_have_text("10000 rows, 1 to 50 shown")
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".said")).to_have_text("10000 rows, 51 to 100 shown")
    expect(page.locator("tbody tr")).to_have_count(50)


def test_the_curves_keep_their_peaks(reader: Reader, large: Path) -> None:
    page = reader.open(large, "#/team/team%201/FLARE_Ts_0001")
    expect(page.locator("path.curve")).to_be_visible()
