"""What the command says at its end, and what it does not accept."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from evaluation.__main__ import main
from evaluation.batch.batch import BatchOutcome, summary
from evaluation.batch.messages import Entrant
from evaluation.states import State
from tests.evaluation.batch import NOTHING
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.records import RECORD

TEAMS = [
    Entrant(name, Path(), Path(), CONDITIONS, 1024, NOTHING) for name in ("alpha", "beta", "gamma")
]


def test_the_summary_counts_and_says_what_is_missing_and_why() -> None:
    broken = replace(RECORD, state=State.INFRA_ERROR, accuracy=None)
    slow = replace(RECORD, state=State.TIMEOUT)
    records = {"alpha": [RECORD, slow, slow, RECORD, RECORD], "beta": [broken], "gamma": []}
    missing = {("beta", case): "GPU lost" for case in "abcd"} | {("beta", "e"): "disk full"}
    text = summary(TEAMS, 5, BatchOutcome(records, {"gamma": "no predict.sh"}, missing))
    assert "| alpha | 5 | 3 | 2 | 0 | 2 timeout |" in text
    assert "| beta | 0 | 0 | 0 | 5 |  |" in text
    assert "| gamma | 0 | 0 | 0 | 5 | refused |" in text
    assert "refused  gamma: no predict.sh" in text
    assert "missing  beta: a, b, c and 1 more: GPU lost" in text
    assert "missing  beta: e: disk full" in text
    assert "give the same command again" in text


def test_when_nothing_is_missing_nothing_is_to_be_mended() -> None:
    text = summary(TEAMS[:1], 1, BatchOutcome({"alpha": [RECORD]}, {}, {}))
    assert text.splitlines() == [
        "| team | scored | ok | failed | missing |  |",
        "|---|---:|---:|---:|---:|---|",
        "| alpha | 1 | 1 | 0 | 0 |  |",
    ]


@pytest.mark.parametrize("option", [["--slots", "2"], ["--gpu", "GPU-1"], ["--scorers", "0"]])
def test_options_of_this_machine_are_not_for_a_cluster(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [str(tmp_path), "--cases", "c", "--labels", "l", "--output", str(tmp_path / "out")]
    assert main(["batch", *place, "--scheduler", "tcp://127.0.0.1:1", *option]) == 1
    assert "are for this machine" in capsys.readouterr().err
