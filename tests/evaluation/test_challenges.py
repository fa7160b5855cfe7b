"""Challenges: what those of the project say, and what is said of a file that is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evaluation import challenges
from evaluation.challenges import as_gb, built_in, load
from evaluation.errors import EvaluationError
from evaluation.ranking.rules import Metric
from tests.engine import ROOT
from tests.evaluation.challenges import FLARE24

GOOD = (challenges.FOLDER / "flare24.toml").read_text()


def test_flare24_has_the_metrics_and_tolerances_of_its_papers() -> None:
    """45 s and 4 GB; a failed case counts 3600 s, and 10 GB all that time, as in FLARE 2022."""
    assert (FLARE24.limits.time_s, FLARE24.limits.vram_mib) == (45.0, 4096.0)
    assert FLARE24.ranking.method == "rank-then-aggregate"
    assert FLARE24.ranking.metrics == (
        Metric("dsc", "DSC", "larger", failed=0.0),
        Metric("nsd", "NSD", "larger", failed=0.0),
        Metric("flare_time_s", "Time beyond 45 s (s)", "smaller", failed=3600.0, tolerance=45.0),
        Metric(
            "area_above_4096_mib_s",
            "GPU memory beyond 4 GB over time (MiB s)",
            "smaller",
            failed=3600 * (10240 - 4096.0),
        ),
    )


def test_flare26_is_flare24_with_60_s_as_far_as_it_is_known() -> None:
    flare26 = load("flare26")
    assert (flare26.scoring, flare26.contract) == (FLARE24.scoring, FLARE24.contract)
    assert (flare26.limits.time_s, flare26.limits.vram_mib) == (60.0, None)
    assert [one.tolerance for one in flare26.ranking.metrics] == [0.0, 0.0, 60.0]


def test_autopet_weighs_as_its_page_says_and_is_run_as_on_grand_challenge() -> None:
    autopet = load("autopet")
    weights = {one.column: one.weight for one in autopet.ranking.metrics}
    assert weights == {"dsc": 0.5, "false_positive_ml": 0.25, "false_negative_ml": 0.25}
    assert autopet.scoring.connectivity == 18
    assert autopet.contract.sockets == ("images/ct", "images/pet")
    assert not autopet.contract.may_be_root


def test_each_is_named_after_its_file() -> None:
    names = ["autopet", "flare23", "flare24", "flare26"]
    assert [load(name).name for name in built_in()] == list(built_in()) == names
    assert [load(name).ranking.name for name in names] == names


def test_one_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace("time_s = 45.0", "time_s = 7.5").replace("4096.0 ", "1536.0 "))
    mine = load(str(path))
    assert (mine.name, mine.ranking.name) == ("mine", "mine")
    _, _, time, area = mine.ranking.metrics
    assert (time.name, time.tolerance) == ("Time beyond 7.5 s (s)", 7.5)
    assert area.column == "area_above_1536_mib_s"
    assert area.name == "GPU memory beyond 1.5 GB over time (MiB s)"


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("timeout_s = 3600.0", "", "limits: Object missing required field `timeout_s`"),
        ("time_s = 45.0", "time_s = 0", "limits.time_s: Expected `float` > 0.0"),
        ("time_s = 45.0", "time = 45.0", "ranking.metrics: 'time_s' is not in [limits]"),
        ("vram_mib = 4096.0", "", "ranking.metrics: 'vram_mib' is not in [limits]"),
        ("[limits]", "limits = 3\n[limit]", "limits: Expected `object`, got `int`"),
        ('"rank-then-aggregate"', '"median"', "ranking.method: Invalid enum value 'median'"),
        ('method = "rank-then-aggregate"', "alpha = 1.5", "ranking.alpha: Expected `float` < 1.0"),
        ('method = "rank-then-aggregate"', "", "ranking: Object missing required field `method`"),
        ('"larger"', '"big"', "ranking.metrics[0].better: Invalid enum value 'big'"),
        ('tolerance = "time_s"', "tolerance = -1", "ranking.metrics[2]: a tolerance must be above"),
        ('tolerance = "time_s"', 'tolerance = "soon"', "ranking.metrics: 'soon' is not in"),
        ('tolerance = "time_s"', "weight = 0", "ranking.metrics[2].weight: Expected `float` > 0"),
        ('tolerance = "time_s"', 'weight = "half"', "weight: Expected `float`, got `str`"),
        (
            "failed = 3600.0",
            "failed = nan",
            "ranking.metrics[2]: failed, weight, tolerance and und",
        ),
        ("failed = 3600.0", "", "ranking.metrics[2]: Object missing required field `failed`"),
        ('name = "NSD"', "", "ranking.metrics[1]: Object missing required field `name`"),
        ("[limits]", "[limit]", "Object contains unknown field `limit`"),
        ("failed = 3600.0", "failed = 0.0\ntolerence = 3", "unknown field `tolerence`"),
        ('column = "nsd"', 'column = "dsc"', "ranking: metrics: there must be some, each with a"),
        ('column = "dsc"', "column = ", "Invalid value"),
        ("lesion_label = 1", "lesion_label = 2", "scoring: lesion_label is 2, which no class has"),
        ("tolerance_mm = 2.0", "tolerance_mm = 0.0", "scoring.classes[0].tolerance_mm: Expected"),
        ('dtype = "uint8"', 'dtype = "float"', "scoring.dtype: Invalid enum value 'float'"),
        ("\nlabel = 1", "\nlabel = 0", "scoring.classes[0].label: Expected `int` >= 1"),
        ('inputs = "/w', 'inputs = "w', "contract.inputs: Expected `str` matching regex '^/'"),
        ("[contract]", "[contract]\nmay_be_root = 3", "contract.may_be_root: Expected `bool`"),
        ("command =", "shm_share = 2.0\ncommand =", "contract.shm_share: Expected `float` <= 1.0"),
    ],
)
def test_what_is_wrong_is_one_line_with_file_and_key(
    tmp_path: Path, old: str, new: str, finding: str
) -> None:
    assert old in GOOD
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(EvaluationError, match=r"mine\.toml: not a challenge: ") as caught:
        load(str(path))
    assert finding in str(caught.value)
    assert "compare with" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("again", ["label = 1\nname = 'Other'", "label = 2\nname = 'Lesion'"])
def test_no_two_classes_share_a_label_or_a_name(tmp_path: Path, again: str) -> None:
    path = tmp_path / "mine.toml"
    text = f"[[scoring.classes]]\n{again}\ntolerance_mm = 1.0\n[ranking]"
    path.write_text(GOOD.replace("[ranking]", text))
    with pytest.raises(EvaluationError, match="each needs a label and a name of its own"):
        load(str(path))


def test_a_tolerance_needs_a_metric_that_is_better_small() -> None:
    with pytest.raises(ValueError, match="better small"):
        Metric("dsc", "DSC", "larger", failed=0.0, tolerance=0.1)


def test_no_challenge_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no challenge of that name; there are autopet, fla"):
        load(str(tmp_path / "flare99"))
    with pytest.raises(EvaluationError, match=r"not a challenge: .*Is a directory"):
        load(str(tmp_path))


def test_gigabytes_are_written_as_people_do() -> None:
    assert [as_gb(mib) for mib in (4096.0, 1536.0, 10240.0)] == ["4 GB", "1.5 GB", "10 GB"]


def test_its_limits_are_written_nowhere_else() -> None:
    """45 s and 4 GB are FLARE 2024's alone; the sandbox has as many processes."""
    written = re.compile(r"\b(45 s|4 GB|45\.0|4096(\.0)?)(?!\w)")
    files = [*(ROOT / "evaluation").rglob("*.py"), *(ROOT / "evaluation").rglob("assets/*.js")]
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]
    assert [line for line in lines if written.search(line)] == [
        "pids: int | None = 4096  # threads count"
    ]
