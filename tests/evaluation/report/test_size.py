"""25 teams with 400 cases each: a file that can be sent, and that builds no more than it shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from evaluation.__main__ import main
from tests.evaluation.report.conftest import Reader
from tests.evaluation.report.simulated import simulate, write_pictures

pytestmark = pytest.mark.slow

TEAMS, CASES = 25, 400
LARGEST_MB, MOST_ELEMENTS = 30, 5000


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


@pytest.mark.parametrize("address", ["#/", "#/cases", "#/team/team%201"])
def test_a_page_builds_few_elements(address: str, reader: Reader, large: Path) -> None:
    page = reader.open(large, address)
    expect(page.locator("main table").first).to_be_visible()
    count = page.evaluate("document.querySelectorAll('*').length")
    print(count)
    assert count < MOST_ELEMENTS


def test_ten_thousand_cases_can_be_looked_through(reader: Reader, large: Path) -> None:
    page = reader.open(large, "#/cases")
    expect(page.locator(".said")).to_have_text("10000 rows, 1 to 50 shown")
    page.get_by_role("button", name="Next").click()
    expect(page.locator(".said")).to_have_text("10000 rows, 51 to 100 shown")
    expect(page.locator("tbody tr")).to_have_count(50)


def test_the_curves_keep_their_peaks(reader: Reader, large: Path) -> None:
    page = reader.open(large, "#/team/team%201/FLARE_Ts_0001")
    expect(page.locator("path.curve")).to_be_visible()
