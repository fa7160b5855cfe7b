"""The report in a browser: what a reader finds, sorts, filters and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from evaluation.__main__ import main
from tests.evaluation.report.conftest import Reader
from tests.evaluation.report.scanned import CASE
from tests.evaluation.report.simulated import simulate

Scheme = Literal["light", "dark"]
PLACES = ("#/", "#/cases", "#/team/alpha", f"#/team/alpha/{CASE}", "#/team/late", "#/nowhere")
# Every text's contrast below 4.5, by WCAG 2's formula.
CONTRASTS = r"""() => {
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const colour = channels(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const weak = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.textContent.trim());
    if (!own || !node.checkVisibility() || node.disabled || node.closest("script")) continue;
    const style = getComputedStyle(node);
    const colour = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(channels(colour)), light(ground(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) weak.push(`${contrast.toFixed(2)} ${node.textContent.trim().slice(0, 40)}`);
  }
  return weak;
}"""

# Texts of plots that reach beyond the plot.
CUT = """() => [...document.querySelectorAll("svg text")].filter((one) => {
  const [text, plot] = [one, one.ownerSVGElement].map((node) => node.getBoundingClientRect());
  return text.left < plot.left - 1 || text.right > plot.right + 1;
}).map((one) => one.textContent)"""


def column(page: Page, label: str, table: str = ".listing table") -> list[str]:
    """The texts of a table's column, as they are shown."""
    heads = page.locator(f"{table} thead th").all_inner_texts()
    index = next(i for i, head in enumerate(heads) if head.replace("\n", " ").startswith(label))
    return page.locator(f"{table} tbody tr > :nth-child({index + 1})").all_inner_texts()


def test_the_overview_has_its_parts(reader: Reader, report: Path) -> None:
    page = reader.open(report)
    assert page.title() == "Simulated challenge"
    assert page.locator("h2").all_inner_texts() == [
        "Leaderboard",
        "Podium",
        "How stable the places are",
        "Who is better than whom",
        "Spread over cases",
    ]
    expect(page.locator("figure svg")).to_have_count(3)
    expect(page.locator("main")).to_contain_text("DSC: no team is significantly better")
    assert column(page, "Place") == ["1", "2", "3", "4", "n/a"]
    assert column(page, "Team")[-1].split() == ["late", "refused"]


def test_every_metric_of_a_plot_can_be_chosen(reader: Reader, report: Path) -> None:
    page = reader.open(report)
    section = page.locator("section", has=page.locator("h2", has_text="Spread"))
    for label in ("NSD", "Time", "Peak VRAM", "VRAM area"):
        section.get_by_label(label, exact=True).check()
        expect(section.locator("figcaption")).to_contain_text(label)
        expect(section.locator("svg .median")).to_have_count(4)


@pytest.mark.parametrize("cases", [2, 7])
def test_the_podium_counts_in_whole_cases(reader: Reader, tmp_path: Path, cases: int) -> None:
    folder = tmp_path / "results"
    simulate(folder, ["alpha", "beta"], cases)
    assert main(["rank", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    plot = reader.open(folder / "report.html").locator("figure").first
    marks = plot.locator("text.tick[text-anchor=middle]")
    expect(marks).to_have_text([str(number) for number in range(cases + 1)])


def test_the_leaderboard_sorts_both_ways_and_keeps_missing_figures_last(
    reader: Reader, report: Path
) -> None:
    page = reader.open(report)
    page.get_by_role("button", name="DSC (%)").click()
    shown = column(page, "DSC (%)")
    assert shown[-1] == "n/a"
    means = [float(text.split()[0]) for text in shown[:-1]]
    assert means == sorted(means, reverse=True)
    page.get_by_role("button", name="DSC (%)").click()
    head = page.get_by_role("columnheader", name="DSC (%)")
    expect(head).to_have_attribute("aria-sort", "ascending")
    again = column(page, "DSC (%)")
    assert [float(text.split()[0]) for text in again[:-1]] == means[::-1]
    assert again[-1] == "n/a"


def test_cases_sort_and_filter(reader: Reader, report: Path) -> None:
    page = reader.open(report, "#/cases")
    page.get_by_label("State").select_option("failed")
    failed = column(page, "State")
    assert failed
    assert not any("ok" in state for state in failed)
    page.get_by_label("State").select_option("")
    expect(page.locator(".said")).to_have_text("48 rows")
    page.get_by_role("button", name="Time (s)").click()
    times = [float(text) for text in column(page, "Time (s)")]
    assert len(times) == 48
    assert times == sorted(times)
    page.get_by_label("Team", exact=True).last.select_option("beta")
    assert set(column(page, "Team")) == {"beta"}
    expect(page.locator(".said")).to_have_text("12 of 48 rows")
    page.get_by_label("Search").fill("0007")
    assert column(page, "Case") == ["FLARE_Ts_0007"]
    page.get_by_label("Search").fill("no such case")
    expect(page.locator("tbody")).to_have_text("No row to show.")


def test_a_team_reads_why_its_cases_failed(reader: Reader, report: Path, results: Path) -> None:
    team, case = failing(results)
    page = reader.open(report, f"#/team/{team}")
    assert page.locator("h1").inner_text() == team
    one = page.locator("details", has=page.locator(".name", has_text=case)).first
    one.locator("summary").click()
    expect(one.locator("pre")).to_contain_text("Traceback (most recent call last):")
    one.locator("a").click()
    expect(page.locator("h1")).to_contain_text(case)
    expect(page.locator("pre").first).to_contain_text("CUDA out of memory")


def failing(results: Path) -> tuple[str, str]:
    for path in sorted(results.glob("*/cases/*.json")):
        if json.loads(path.read_text())["state"] != "ok":
            return path.parts[-3], path.stem
    raise AssertionError("no simulated case failed")


def test_a_refused_team_reads_why(reader: Reader, report: Path) -> None:
    page = reader.open(report, "#/team/late")
    expect(page.locator(".warning")).to_contain_text("holds late:latest for arm64")


def test_best_and_worst_cases_have_their_pictures(reader: Reader, report: Path) -> None:
    page = reader.open(report, "#/team/alpha")
    picture = page.locator(".overlay img")
    picture.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.overlay img').complete")
    assert picture.evaluate("image => image.naturalWidth") > 600
    assert CASE in (picture.get_attribute("alt") or "")


def test_curves_are_drawn_of_a_case_and_of_a_team(reader: Reader, report: Path) -> None:
    page = reader.open(report, "#/team/alpha")
    expect(page.locator("path.curve")).to_have_count(12)
    page = reader.open(report, f"#/team/alpha/{CASE}")
    expect(page.locator("path.curve")).to_have_count(1)
    assert "peak" in (page.locator("figure svg").first.get_attribute("aria-label") or "")


def test_an_address_that_is_not_there_says_so(reader: Reader, report: Path) -> None:
    for address in ("#/team/nobody", "#/team/alpha/no_case", "#/nowhere", "#/team/%E0%A4%A"):
        assert reader.open(report, address).locator("h1").inner_text() == "Not in this report"


def test_everything_can_be_reached_by_keyboard(reader: Reader, report: Path) -> None:
    page = reader.open(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.localName") == "main"
    page.get_by_role("button", name="DSC (%)").focus()
    page.keyboard.press("Enter")
    head = page.get_by_role("columnheader", name="DSC (%)")
    expect(head).to_have_attribute("aria-sort", "descending")
    page.get_by_role("link", name="alpha").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("alpha")
    assert page.evaluate("document.activeElement.localName") == "main", "announced to a listener"


@pytest.mark.parametrize("address", PLACES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_all_of_a_page_is_in_view_and_stands_out(
    reader: Reader, report: Path, address: str, scheme: Scheme, width: int
) -> None:
    """On a phone and a screen: nothing beyond its edges, and WCAG 2's contrast for every text."""
    reader.page.emulate_media(color_scheme=scheme)
    reader.page.set_viewport_size({"width": width, "height": 844})
    page = reader.open(report, address)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CUT) == []
    assert page.evaluate(CONTRASTS) == []


def test_a_phone_sorts_cards_by_what_it_chooses(reader: Reader, report: Path) -> None:
    reader.page.set_viewport_size({"width": 390, "height": 844})
    page = reader.open(report)
    page.get_by_label("Sort by").select_option(label="Team")
    names = page.locator(".stacked [data-label=Team]").all_inner_texts()
    assert [name.split()[0] for name in names] == ["alpha", "beta", "delta", "gamma", "late"]


def test_paper_gets_all_rows_and_no_controls(reader: Reader, report: Path) -> None:
    page = reader.open(report, "#/cases")
    page.emulate_media(media="print", color_scheme="dark")
    expect(page.locator("header.bar")).to_be_hidden()
    expect(page.locator(".controls").first).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")


def test_the_address_keeps_what_was_chosen_and_the_way_back_leads_there(
    reader: Reader, report: Path
) -> None:
    reader.page.set_viewport_size({"width": 1280, "height": 400})
    page = reader.open(report, "#/cases")
    page.get_by_label("Team", exact=True).last.select_option("beta")
    page.get_by_label("Search").fill("000")
    page.get_by_role("button", name="Time (s)").click()
    chosen, times = column(page, "Case"), column(page, "Time (s)")
    address = page.evaluate("location.hash")
    assert address.startswith("#/cases?")
    page.evaluate("window.scrollTo(0, 120)")
    page.wait_for_timeout(300)
    page.get_by_role("link", name=chosen[-1]).click()
    expect(page.locator("h1")).to_contain_text(chosen[-1])
    assert page.evaluate("window.scrollY") == 0
    page.go_back()
    expect(page.locator("h1")).to_have_text("All cases")
    assert (column(page, "Case"), column(page, "Time (s)")) == (chosen, times)
    assert page.evaluate("window.scrollY") == 120

    sent = reader.open(report, address)
    assert (column(sent, "Case"), column(sent, "Time (s)")) == (chosen, times)
    assert sent.get_by_label("Search").input_value() == "000"


@pytest.mark.parametrize("query", ["sort=99-", "sort=x", "page=-4", "page=1e9", "team=nobody&q=%"])
def test_an_address_that_cannot_be_is_the_whole_list(
    reader: Reader, report: Path, query: str
) -> None:
    page = reader.open(report, f"#/cases?{query}")
    expect(page.locator(".said")).to_have_text("48 rows")


def test_a_log_opens_at_its_end(reader: Reader, results: Path, report: Path) -> None:
    team, case = failing(results)
    page = reader.open(report, f"#/team/{team}/{case}")
    log = page.locator("pre").first
    page.wait_for_timeout(100)
    left = "one => one.scrollHeight - one.clientHeight - one.scrollTop"
    assert log.evaluate("one => one.scrollHeight > one.clientHeight"), "it is long"
    assert abs(log.evaluate(left)) < 2


def test_a_box_plot_has_a_dot_a_case(reader: Reader, report: Path) -> None:
    section = reader.open(report).locator("section", has_text="Spread over cases")
    expect(section.locator("svg .dot")).to_have_count(48)
    assert section.locator("svg text").first.text_content() == "DSC (%)"


def test_where_nobody_is_better_it_is_said(reader: Reader, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    simulate(folder, ["alpha", "beta"], 2)
    assert main(["rank", str(folder)]) == 0
    assert main(["report", str(folder)]) == 0
    section = reader.open(folder / "report.html").locator("section", has_text="Who is better")
    expect(section).to_contain_text("DSC: no team is significantly better than another at 0.05.")


def test_the_whole_report_is_one_page_for_paper(reader: Reader, report: Path) -> None:
    page = reader.open(report, "#/all")
    for team in ("alpha", "beta", "gamma", "delta", "late"):
        expect(page.locator("h2.team", has_text=team)).to_have_count(1)
    expect(page.locator("h1")).to_have_count(1)
    page.emulate_media(media="print")
    assert len(page.pdf()) > 50_000


def test_without_a_ranking_there_are_figures_and_no_places(
    reader: Reader, results: Path, tmp_path: Path
) -> None:
    for team in ("alpha", "beta"):
        (tmp_path / team).symlink_to(results / team)
    assert main(["report", str(tmp_path)]) == 0
    page = reader.open(tmp_path / "report.html")
    expect(page.locator("main")).to_contain_text("There is no ranking yet")
    expect(page.get_by_role("columnheader", name="Place")).to_have_count(0)
    assert column(page, "Team")
