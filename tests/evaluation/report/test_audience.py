"""What a page for the public or for a team must not have, wherever in the file it might be."""

from __future__ import annotations

import base64
import gzip
import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from playwright.sync_api import expect

from evaluation.__main__ import main
from evaluation.ranking.ranking_file import Excluded
from evaluation.report.audience import PUBLIC_COLUMNS, readers
from evaluation.report.metrics import METRICS
from evaluation.report.parts import LOG_CHARACTERS
from evaluation.states import State
from evaluation.store import Store
from evaluation.teams import find_teams
from tests.evaluation.records import RECORD, VRAM
from tests.evaluation.report.conftest import Reader
from tests.evaluation.report.simulated import TRACEBACK, simulate, write_pictures, write_refused
from tests.evaluation.report.test_standings import RANKING, standings

CASES = [f"FLARE_Ts_{i:04d}" for i in range(1, 9)]
SAID = "/srv/hidden/FLARE_Ts_0003_0000.nii.gz: holds no voxel"
OF_MACHINES = ("sha256:4f1c0e2b9d0a", "EPYC", "NVIDIA A100", "/srv")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three teams; a case of alpha and one of beta fail with a path, a name and a log."""
    folder = tmp_path_factory.mktemp("audience") / "results"
    simulate(folder, ["alpha", "beta", "gamma"], len(CASES), samples=20)
    for team, case in (("alpha", CASES[2]), ("beta", CASES[5])):
        store = Store(folder / team)
        one = store.load(case)
        assert one is not None
        log = (f"{team} reads {case}", *TRACEBACK)
        store.save(
            replace(one, state=State.NONZERO_EXIT, message=f"{team}: {SAID}", log=log, vram=VRAM)
        )
    write_pictures(folder / "alpha", 3)
    write_refused(folder / "late", "/srv/in/late.tar.gz: holds late:latest for arm64")
    assert main(["rank", str(folder), "--resamples", "10", "--missing", "failed"]) == 0
    return folder


def text_of(page: Path) -> str:
    """All that a page holds, what it unpacks when it is asked among it."""
    html = page.read_text()
    assert html.rstrip().endswith("</html>")
    blocks = re.findall(r'<script type="text/plain" id="team-\d+">(.*?)</script>', html)
    assert len(blocks) == 4
    return html + "".join(gzip.decompress(base64.b64decode(block)).decode() for block in blocks)


def made(results: Path, *options: str) -> str:
    page = results.parent / "page.html"
    assert main(["report", str(results), "--output", str(page), *options]) == 0
    return text_of(page)


def found(text: str) -> set[str]:
    secrets = [*CASES, *TRACEBACK, "alpha reads", "beta reads", *OF_MACHINES, "holds no voxel"]
    shown = {secret for secret in secrets if secret in text}
    return shown | ({"pictures"} if 'id="overlay-' in text else set())


def test_the_organisers_see_everything(results: Path) -> None:
    assert found(made(results)) >= {
        *CASES,
        TRACEBACK[1],
        *OF_MACHINES,
        "holds no voxel",
        "pictures",
    }


def test_the_public_sees_nothing_of_cases_logs_machines_and_paths(results: Path) -> None:
    text = made(results, "--public")
    assert not found(text)
    assert '"1", "2", "3", "4", "5", "6", "7", "8"' in text, "cases by number, in this order"
    assert "arm64" not in text


def test_a_team_sees_why_its_own_cases_failed(results: Path) -> None:
    text = made(results, "--team", "beta")
    assert found(text) == {"holds no voxel"}
    (said,) = re.findall(r'"(\w+: [^"]*holds no voxel)"', text)
    assert re.fullmatch(r"beta: \d_0000\.nii\.gz: holds no voxel", said)


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("case-names", set(CASES)),
        ("logs", {"alpha reads", "beta reads", *TRACEBACK}),
        ("pictures", {"pictures"}),
        ("machines", {*OF_MACHINES} - {"/srv"}),
        ("messages", {"holds no voxel"}),
    ],
)
def test_what_is_asked_for_is_shown_and_nothing_else(
    results: Path, what: str, shown: set[str]
) -> None:
    assert found(made(results, "--public", "--show", what)) == shown


def test_columns_are_chosen(results: Path) -> None:
    text = made(results, "--public", "--columns", "status", "lesion_count")
    assert '"lesion_count": [' in text
    assert '"flare_time_s": [' not in text.partition("</html>")[2]


def test_of_other_processes_the_public_learns_that_there_were_some(results: Path) -> None:
    text = made(results, "--public", "--columns", "contaminated")
    assert "another process used the GPU" in text
    assert "Xorg" not in text
    assert "Xorg" in made(results, "--public", "--columns", "contaminated", "--show", "machines")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("/srv/a/x.nii.gz: odd", "x.nii.gz: odd"),
        ("/secret.txt", "secret.txt"),
        ("in data/test/x.nii.gz", "in x.nii.gz"),
        (r"C:\scans\x.nii", "x.nii"),
        ("FLARE_1 and FLARE_10", "1 and 2"),
    ],
)
def test_words_lose_names_and_folders(words: str, shown: str) -> None:
    records = [replace(RECORD, case=f"FLARE_{i}", reference_sha256=str(i)) for i in (1, 10)]
    assert readers(records, (), ()).text(words) == shown


def test_each_is_shown_for_itself() -> None:
    records = [replace(RECORD, case="FLARE_1")]
    words = "/srv/FLARE_1.nii.gz"
    for show, said in (
        (["case-names"], "FLARE_1.nii.gz"),
        (["machines"], "/srv/1.nii.gz"),
        (["case-names", "machines"], words),
    ):
        assert readers(records, show, ()).text(words) == said


def test_numbers_do_not_follow_the_names() -> None:
    records = [replace(RECORD, case=f"c{i}", reference_sha256=f"{9 - i}") for i in range(10)]
    audience = readers(records, (), ())
    assert [audience.case(f"c{i}") for i in range(3)] == ["10", "09", "08"]


def test_neither_do_those_of_cases_with_the_same_reference() -> None:
    records = [replace(RECORD, case=f"c{i}", scans_sha256=(f"{9 - i}",)) for i in range(3)]
    audience = readers(records, (), ())
    assert [audience.case(f"c{i}") for i in range(3)] == ["3", "2", "1"]


def test_a_number_is_no_name_that_is_numbered_again() -> None:
    records = [replace(RECORD, case=f"{i}", reference_sha256=f"{9 - i}") for i in range(1, 4)]
    assert readers(records, (), ()).text("cases 1, 2 and 3") == "cases 3, 2 and 1"


def test_a_log_is_cut_after_names_are_numbers(tmp_path: Path) -> None:
    simulate(tmp_path, ["alpha", "beta", "gamma", "delta"], 1, samples=20)
    store, name = Store(tmp_path / "alpha"), "FLARE_Ts_0001"
    one = store.load(name)
    assert one is not None
    rest = "." * (LOG_CHARACTERS - 3)
    store.save(replace(one, state=State.NONZERO_EXIT, log=(f"{name}{rest}",)))
    text = made(tmp_path, "--public", "--show", "logs")
    assert rest in text
    assert "001." not in text


def test_excluded_cases_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(3)]
    records = [
        replace(RECORD, case=one, reference_sha256=f"{9 - i}") for i, one in enumerate(names)
    ]
    excluded = tuple(Excluded(one, "", "as asked") for one in names)
    content = standings(tmp_path, replace(RANKING, excluded=excluded), readers(records, (), ()))
    assert [one["case"] for one in content["excluded"]] == ["1", "2", "3"]


def test_who_is_not_ranked_is_known_though_not_why(reader: Reader, tmp_path: Path) -> None:
    results = tmp_path / "results"
    simulate(results, ["alpha", "beta", "gamma"], 4, samples=20)
    for team in ("alpha", "beta"):
        Store(results / team).path(CASES[0]).unlink()
    rank = ["rank", str(results), "--resamples", "2", "--missing", "exclude", "--without", "gamma"]
    Store(results / "alpha").path(CASES[1]).unlink()
    Store(results / "beta").save(replace(RECORD, case=CASES[1], accuracy=None))
    assert main(rank) == 0
    assert main(["report", str(results), "--public"]) == 0
    page = reader.open(results / "public.html")
    expect(page.locator(".badge", has_text="not ranked")).to_have_count(1)
    expect(page.get_by_text("1 case not ranked for any team")).to_be_visible()


def test_the_usual_columns_have_every_metric() -> None:
    assert {metric.column for metric in METRICS} <= {*PUBLIC_COLUMNS}


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ("--team nobody", "no such team; there are alpha, beta, gamma, late"),
        ("--show logs", "--show and --columns go with --public or --team"),
        ("--public --columns dice", "--columns dice: there are case, status, dsc"),
    ],
)
def test_misuse_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], options: str, finding: str
) -> None:
    assert main(["report", str(results), *options.split()]) == 1
    said = capsys.readouterr().err
    assert finding in said
    assert len(said.splitlines()) == 1


def test_a_public_page_reads_well(reader: Reader, results: Path) -> None:
    assert main(["report", str(results), "--public"]) == 0
    page = reader.open(results / "public.html")
    expect(page.locator("main")).to_contain_text("For the public: cases are numbered.")
    page = reader.open(results / "public.html", "#/team/beta")
    expect(page.locator("main")).not_to_contain_text("It printed nothing")
    expect(page.locator("path.curve")).to_have_count(len(find_teams(results)[0][1].cases()))
    page = reader.open(results / "public.html", "#/team/beta/3")
    expect(page.locator("h1")).to_contain_text("3")
    heads = page.locator("h2").all_inner_texts()
    assert heads == ["GPU memory over time", "This case, all teams"]
    assert main(["report", str(results), "--public", "--columns", "status"]) == 0
    for address in ("#/", "#/cases", "#/team/alpha", "#/team/alpha/3"):
        reader.open(results / "public.html", address)
