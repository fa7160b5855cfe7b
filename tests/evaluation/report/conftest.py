"""A real browser, and a results folder with one scan that it can show."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from evaluation.__main__ import main
from tests.evaluation.report.scanned import write_scanned_case
from tests.evaluation.report.simulated import simulate, write_refused

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # there is no network
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)
TEAMS = ["alpha", "beta", "gamma", "delta"]


@dataclass
class Reader:
    """Somebody who reads a report, and what the browser said meanwhile."""

    page: Page
    said: list[str] = field(default_factory=list)  # errors and warnings
    asked: list[str] = field(default_factory=list)  # addresses

    def open(self, report: Path, address: str = "#/") -> Page:
        """Open a report at an address inside it, and wait for its heading."""
        self.page.goto(f"{report.as_uri()}{address}")
        self.page.reload()  # another address of the same file loads nothing by itself
        self.page.locator("main h1").wait_for()
        return self.page


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium (Debian's package of that name)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def reader(browser: Browser) -> Iterator[Reader]:
    """A reader with a new window; whatever the browser complains of fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    reader = Reader(context.new_page())
    page = reader.page
    page.on("console", lambda line: reader.said.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: reader.said.append(f"exception: {error}"))
    page.on("request", lambda request: reader.asked.append(request.url))
    yield reader
    context.close()
    said = [line for line in reader.said if "GPU stall due to ReadPixels" not in line]
    assert not said
    elsewhere = [url for url in reader.asked if not url.startswith(("file:", "data:", "blob:"))]
    assert not [url for url in elsewhere if not url.startswith("http://127.0.0.1")]


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four ranked teams with twelve cases each, one of them with its files, and a refused team."""
    folder = tmp_path_factory.mktemp("page") / "results"
    simulate(folder, TEAMS, 12, samples=300)
    write_scanned_case(folder, "alpha", folder.parent)
    write_refused(folder / "late", "late.tar.gz: holds late:latest for arm64, expected amd64")
    assert main(["rank", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def report(results: Path) -> Path:
    """The report of `results`."""
    assert main(["report", str(results), "--title", "Simulated challenge"]) == 0
    return results / "report.html"
