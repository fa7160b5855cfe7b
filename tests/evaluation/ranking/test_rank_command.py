"""`rank` from its command line: what it writes, and what it says to misuse."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from evaluation import challenges
from evaluation.__main__ import main
from evaluation.ranking.ranking_file import read_ranking
from evaluation.states import State
from tests.evaluation.ranking.results_folder import (
    infra_error,
    record,
    write_submission,
    write_team,
)

# Ranks by DSC, NSD, time and area: good 1 1 1.5 2, same as its twin; slow 3 3 3 2; bad fails.
CASES = [f"case_{i}" for i in range(12)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    write_team(folder, "good", [record(case, 0.9, 0.9) for case in CASES])
    write_team(folder, "twin_", [record(case, 0.9, 0.9) for case in CASES])
    write_team(folder, "slow", [record(case, 0.5, 0.5, time_s=60.0) for case in CASES])
    write_team(folder, "bad", [record(case, state=State.OOM_VRAM) for case in CASES])
    write_submission(folder, "none", "refused", "image is for arm64")
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_everything_is_written(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(results), "--resamples", "50"]) == 0
    said = capsys.readouterr().out
    output = results / "ranking"
    report = (output / "ranking.md").read_text()
    assert report in said
    assert f"ranking  {output}" in said

    ranking = read_ranking(output / "ranking.json")
    assert [team.name for team in ranking.teams] == ["good", "twin_", "slow", "bad"]
    for standing in ranking.methods.values():
        assert standing.places == (1, 1, 3, 4)
    assert ranking.resamples == 50

    rows = table(output / "ranking.csv")
    placed = ["1 good 0", "1 twin_ 0", "3 slow 0", "4 bad 12"]
    assert [f"{row['place']} {row['team']} {row['failed']}" for row in rows] == placed
    assert rows[0]["score"] == "1.625"  # DSC and NSD 1.5, time 1.5, area 2 of 3 alike
    assert float(rows[2]["mean_flare_time_s"]) == 15
    assert (rows[2]["mean_dsc_low"], rows[2]["mean_dsc_high"]) == ("0.5", "0.5")


def test_shared_places_failures_and_refusals_are_shown(results: Path) -> None:
    main(["rank", str(results), "--resamples", "50"])
    lines = (results / "ranking" / "ranking.md").read_text().splitlines()
    good = next(line for line in lines if line.startswith("| good |"))
    assert good.startswith("| good | 1= | 1.625 | 1 to 1 | 100.0% | 1= | 1= | 0 |")
    assert any(line.startswith(r"| twin\_ | 1= |") for line in lines)
    slow = next(line for line in lines if line.startswith("| slow |"))
    assert slow.split(" | ")[1] == "3"
    assert "| none | refused: image is for arm64 |" in lines
    # Better than slow and bad, worse than nobody; not better than its twin.
    assert "| good | 2 / 0 | 2 / 0 | 2 / 0 | 1 / 0 |" in lines
    means = next(line for line in lines if line.startswith("| slow | 0.5 "))
    assert means.split(" | ")[1:5] == ["0.5 (0.5 to 0.5)", "3", "0.5 (0.5 to 0.5)", "3"]


def test_the_tables_are_latex_as_well(results: Path) -> None:
    main(["rank", str(results), "--resamples", "50"])
    text = (results / "ranking" / "ranking.tex").read_text()
    assert text.count("\\begin{longtable}") == text.count("\\end{longtable}") == 5
    assert "twin\\_ & 1= & 1.625" in text


def test_challenger_csv_is_long_and_has_what_is_ranked(results: Path) -> None:
    main(["rank", str(results), "--resamples", "2"])
    rows = table(results / "ranking" / "challenger.csv")
    ranked = ["dsc", "nsd", "flare_time_s", "area_above_4096_mib_s"]
    assert list(rows[0]) == ["task", "case", "algorithm", *ranked]
    assert len(rows) == len({(row["case"], row["algorithm"]) for row in rows}) == 4 * len(CASES)
    assert {row["task"] for row in rows} == {"flare24"}
    by_team = {row["algorithm"]: row for row in rows if row["case"] == "case_3"}
    assert by_team["slow"]["flare_time_s"] == "15.0"
    assert by_team["bad"]["dsc"] == "0.0"
    assert by_team["bad"]["flare_time_s"] == "3555.0"


def test_a_gap_is_refused_or_counted_as_asked(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_team(results, "good", [infra_error("case_3")])
    assert main(["rank", str(results)]) == 1
    said = capsys.readouterr().err
    expected = "error: not every team has a result of all 12 cases (good, case_3: infra"
    assert said.startswith(expected)
    assert len(said.splitlines()) == 1
    assert not (results / "ranking").exists()

    assert main(["rank", str(results), "--missing", "failed", "--resamples", "2"]) == 0
    rows = table(results / "ranking" / "ranking.csv")
    placed = ["1 twin_ 0", "2 good 1"]
    assert [f"{row['place']} {row['team']} {row['missing']}" for row in rows[:2]] == placed
    assert "1 (1 without a result)" in (results / "ranking" / "ranking.md").read_text()

    assert main(["rank", str(results), "--missing", "exclude", "--resamples", "2"]) == 0
    report = (results / "ranking" / "ranking.md").read_text()
    assert "4 teams, 11 cases" in report
    assert "| case_3 | good | infra_error: the engine is gone |" in report


def test_output_challenge_and_seed_are_as_asked(results: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    by_time = (
        '[ranking]\nmethod = "aggregate-then-rank"\n[[ranking.metrics]]\n'
        'column = "flare_time_s"\nname = "Time"\nbetter = "smaller"\nfailed = 90.0\n'
    )
    text = (challenges.FOLDER / "flare24.toml").read_text()
    before, _, rest = text.partition("[ranking]")
    mine.write_text(before + by_time + rest[rest.index("[contract]") :])
    words = ["rank", str(results), "--challenge", str(mine), "--seed", "7", "--resamples", "3"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert not (results / "ranking").exists()
    ranking = read_ranking(tmp_path / "out" / "ranking.json")
    assert (ranking.profile.name, ranking.seed, ranking.resamples) == ("mine", 7, 3)
    assert list(ranking.methods["aggregate-then-rank"].metric_ranks) == ["flare_time_s"]
    report = (tmp_path / "out" / "ranking.md").read_text()
    assert "ranked by mine: aggregate-then-rank of Time (weight 1)" in report


def test_a_case_that_left_the_challenge_is_not_ranked(results: Path, tmp_path: Path) -> None:
    for case in CASES[1:]:
        (tmp_path / "cases").mkdir(exist_ok=True)
        (tmp_path / "cases" / f"{case}_0000.nii.gz").touch()
    words = ["rank", str(results), "--resamples", "2", "--without", "twin_"]
    assert main([*words, "--cases", str(tmp_path / "cases")]) == 0
    ranking = read_ranking(results / "ranking" / "ranking.json")
    assert ranking.cases == tuple(sorted(CASES[1:]))
    assert [team.name for team in ranking.teams] == ["good", "slow", "bad"]
    report = (results / "ranking" / "ranking.md").read_text().splitlines()
    assert "| case_0 | all | not among --cases |" in report
    assert "| twin\\_ | not ranked, as asked |" in report


def test_ranking_again_gives_the_same_files(results: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        words = ["rank", str(results), "--resamples", "20", "--output", str(tmp_path / name)]
        assert main(words) == 0
    for file in ("ranking.md", "ranking.tex", "ranking.csv", "ranking.json", "challenger.csv"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_folder_that_is_nobodys_is_named(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "lost").mkdir()
    assert main(["rank", str(results), "--resamples", "2"]) == 0
    assert f"notice: {results / 'lost'}: holds neither" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "finding"),
    [
        ("{0}/absent", 1, "no such folder"),
        ("{0}/good", 1, "give the folder above"),
        ("{0} --challenge flare99", 2, "no challenge of that name"),
        ("{0} --resamples 0", 2, "0: must be above 0"),
        ("{0} --resamples many", 2, "not a whole number"),
        ("{0} --missing maybe", 2, "invalid choice"),
    ],
)
def test_misuse_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], words: str, code: int, finding: str
) -> None:
    try:
        result = main(["rank", *words.format(results).split()])
    except SystemExit as error:
        result = int(str(error.code))
    said = capsys.readouterr().err.splitlines()
    assert result == code
    assert finding in said[-1]
    assert code == 2 or len(said) == 1
