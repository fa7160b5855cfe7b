from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from benchmarks.ranking import simulated
from evaluation.errors import EvaluationError
from evaluation.ranking.ranking import rank
from evaluation.ranking.ranking_file import Excluded, read_ranking, write_ranking
from tests.evaluation.challenges import FLARE24
from tests.evaluation.ranking.results_folder import DSC, outcomes, rules

RANKING = rank(simulated(4, 12), FLARE24.ranking, resamples=7, seed=5)


def test_a_ranking_comes_back_as_it_was_written(tmp_path: Path) -> None:
    gap = Excluded("case_9", "b", "no result")
    for ranking in (
        replace(RANKING, excluded=(gap,)),
        rank(outcomes({"a": [0.5]}), rules(DSC), resamples=2),  # whose taus are undefined
    ):
        write_ranking(tmp_path / "ranking.json", ranking)
        assert read_ranking(tmp_path / "ranking.json") == ranking


def test_the_file_has_the_documented_fields(tmp_path: Path) -> None:
    write_ranking(tmp_path / "ranking.json", RANKING)
    content = json.loads((tmp_path / "ranking.json").read_text())
    assert content["format"] == 2
    assert content["profile"]["metrics"][2]["tolerance"] == 45.0
    assert len(content["methods"]["test-then-rank"]["place_counts"]) == 4
    assert len(content["case_ranks"]["dsc"][0]) == len(content["cases"]) == 12
    assert content["significance"]["nsd"][1][1] == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 2}'])
def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ranking.json"
    path.write_text(content)
    with pytest.raises(EvaluationError, match=r"ranking\.json: not a ranking .* rank the results"):
        read_ranking(path)


def test_a_missing_file_says_who_writes_it(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="evaluation rank"):
        read_ranking(tmp_path / "ranking.json")
