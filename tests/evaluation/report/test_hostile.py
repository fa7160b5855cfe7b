"""Names, logs and messages that would be a program if the page let them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from evaluation.__main__ import main
from tests.evaluation.report.conftest import Reader
from tests.evaluation.report.simulated import simulate, write_refused

RUN = "window.attacked=1"
# No slash: these are names of folders and files.
TEAM = f"\"><img src=x onerror={RUN}> <script>{RUN}<!-- & '${{title}}' %2f #"
CASE = f"<svg onload={RUN}>"
TEXT = f"</script><script>{RUN}</script><img src=x onerror={RUN}>\x1b[31m\u202e]]>-->\u2028"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a team that attacks it with every text that it has a say in."""
    folder = tmp_path_factory.mktemp("hostile") / "results"
    simulate(folder, [TEAM, "good"], 3, samples=50)
    write_refused(folder / f"{TEAM}2", TEXT)
    cases = folder / TEAM / "cases"
    for path in sorted(cases.iterdir()):
        content = json.loads(path.read_text())
        content |= {"state": "nonzero_exit", "message": TEXT, "log": [TEXT, TEXT]}
        content["environment"]["image"] = content["environment"]["image_digest"] = TEXT
        content["vram"]["contaminated"] = [TEXT]
        path.write_text(json.dumps(content))
    path = cases / "FLARE_Ts_0001.json"
    (cases / f"{CASE}.json").write_text(json.dumps(json.loads(path.read_text()) | {"case": CASE}))
    path.unlink()
    curves = folder / TEAM / "curves"
    (curves / "FLARE_Ts_0001.csv.gz").rename(curves / f"{CASE}.csv.gz")
    assert main(["rank", str(folder), "--missing", "failed"]) == 0
    assert main(["report", str(folder), "--title", TEXT]) == 0
    return folder / "report.html"


def unharmed(page: Page) -> bool:
    page.wait_for_timeout(200)  # an onerror handler would have run
    return bool(
        page.evaluate("window.attacked === undefined && !document.querySelector('main img')")
    )


def test_the_overview_shows_names_as_text(reader: Reader, hostile: Path) -> None:
    page = reader.open(hostile)
    assert unharmed(page)
    expect(page.locator("h1")).to_contain_text("</script><script>")
    expect(page.get_by_role("link", name=TEAM, exact=True).first).to_be_visible()


def test_links_lead_to_teams_and_cases_of_any_name(reader: Reader, hostile: Path) -> None:
    page = reader.open(hostile)
    page.get_by_role("link", name=TEAM, exact=True).first.click()
    expect(page.locator("h1")).to_have_text(TEAM)
    page.locator("summary").first.click()
    expect(page.locator(".logs pre").first).to_contain_text("</script><script>window.attacked=1")
    assert unharmed(page)
    page.get_by_role("link", name=CASE, exact=True).last.click()
    expect(page.locator("h1")).to_contain_text(CASE)
    expect(page.locator("pre").first).to_contain_text("onerror")
    assert unharmed(page)
    page.reload()
    expect(page.locator("h1")).to_contain_text(CASE)


def test_a_refusal_is_text_too(reader: Reader, hostile: Path) -> None:
    page = reader.open(hostile)
    page.get_by_role("link", name=f"{TEAM}2", exact=True).click()
    expect(page.locator(".warning")).to_contain_text("<img src=x")
    assert unharmed(page)


def test_the_policy_stops_what_would_slip_through(reader: Reader, hostile: Path) -> None:
    page = reader.open(hostile)
    page.evaluate(
        """run => {
          const inside = document.createElement("div");
          inside.innerHTML = `<img src=x onerror=${run}>`;
          const script = document.createElement("script");
          script.textContent = run;
          document.body.append(inside, script);
        }""",
        RUN,
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.attacked") is None
    assert any("Content Security Policy" in line for line in reader.said)
    reader.said.clear()


def test_a_name_may_be_that_of_what_every_object_has(reader: Reader, tmp_path: Path) -> None:
    simulate(tmp_path, ["constructor", "good"], 1, samples=50)
    for folder in (tmp_path / "constructor" / "cases", tmp_path / "good" / "cases"):
        (path,) = folder.iterdir()
        content = json.loads(path.read_text()) | {"case": "constructor", "vram": None}
        (folder / "constructor.json").write_text(json.dumps(content))
        path.unlink()
    assert main(["rank", str(tmp_path), "--without-gpu"]) == 0
    assert main(["report", str(tmp_path)]) == 0
    page = reader.open(tmp_path / "report.html")
    expect(page.locator(".badge", has_text="not ranked")).to_have_count(0)
    page = reader.open(tmp_path / "report.html", "#/team/good/constructor")
    expect(page.locator("h1")).to_contain_text("constructor")
    reader.open(tmp_path / "report.html", "#/team/constructor")
