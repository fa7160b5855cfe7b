"""Masks that scoring raises, crashes or never ends over, by the commands that score."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import engine
from tests.small_batch import PRELOAD, SmallBatch, tables
from tests.submissions import (
    BEHAVIOURS,
    COPY,
    SHAPE,
    Behaviour,
    save,
    write_cases,
    write_submission,
)

# In every Python that finds this on its path: what becomes of a mask goes by its number of voxels.
STUMBLES = """
import os, signal, sys
from evaluation.scoring import assess

sound = assess.score

def score(rules, predicted_zyx, *others):
    match int(predicted_zyx.sum()):
        case 1: raise ZeroDivisionError("a mask\\nof one \\x1b[31m voxel")
        case 2: os.kill(os.getpid(), signal.SIGSEGV)
        case 3: os.kill(os.getpid(), signal.SIGKILL)
        case 4:
            while True: pass
        case 5: sys.exit(3)
    return sound(rules, predicted_zyx, *others)

assess.score = score
if "evaluation.apart" not in sys.orig_argv:  # the program that waits
    from evaluation import apart
    apart.LIMIT_S = 8.0
"""
SAID = {
    "raises": "cannot be scored: ZeroDivisionError: a mask of one \ufffd[31m voxel",
    "crashes": "cannot be scored: its process crashed (SIGSEGV)",
    "killed": "cannot be scored: its process was killed, perhaps for memory",
    "endless": "cannot be scored: did not end within 8 s",
    "leaves": "cannot be scored: its process crashed (code 3)",
}


def of(voxels: int) -> Behaviour:
    """A submission whose mask has so many voxels."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[:voxels, 0, 0] = 1
    return Behaviour("ok", COPY, make=lambda path: save(path, mask))


MASKS = {name: of(voxels) for voxels, name in enumerate(SAID, 1)}


@pytest.fixture
def stumbling(tmp_path: Path) -> dict[str, str]:
    """The environment of a program whose scoring stumbles."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(STUMBLES)
    return {"PYTHONPATH": f"{tmp_path / 'site'}:{engine.ROOT}"}


def evaluation(
    folder: Path, environment: dict[str, str], *arguments: object
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "evaluation", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(engine.ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stderr == ""
    return done


def rows(path: Path) -> dict[str, tuple[str, str, str]]:
    with path.open() as file:
        found = list(csv.DictReader(file))
    return {one["case"]: (one["status"], one["dsc"], one["message"]) for one in found}


FAILED = {name: ("infra_error", "", said) for name, said in SAID.items()}


def test_score_goes_on(tmp_path: Path, stumbling: dict[str, str]) -> None:
    _, labels = write_cases(tmp_path, ["a", *SAID, "z"])
    for name, one in {"a": BEHAVIOURS["good"], **MASKS, "z": BEHAVIOURS["good"]}.items():
        assert one.make is not None
        one.make(tmp_path / "masks" / f"{name}.nii.gz")
    places = ("--predictions", "masks", "--labels", labels, "--output", "scores")
    done = evaluation(tmp_path, stumbling, "score", *places)
    assert done.returncode == 1
    assert rows(tmp_path / "scores" / "scores.csv") == {
        "a": ("ok", "1.0", ""),
        **FAILED,
        "z": ("ok", "1.0", ""),
    }
    assert f"raises               infra_error   {SAID['raises']}\n" in done.stdout


@pytest.mark.slow
def test_run_goes_on_and_only_scores_anew_what_it_could_not(
    tmp_path: Path, stumbling: dict[str, str]
) -> None:
    """More cases in a row than a run goes on for when it is the machine that fails."""
    scans, labels = write_cases(tmp_path, [*SAID, "z"])
    source = write_submission(tmp_path / "source", {**MASKS, "z": BEHAVIOURS["good"]})
    output = tmp_path / "results"
    places = ("--cases", scans, "--labels", labels, "--output", output, "--gpu", "none")
    command = ("run", "--command", "sh predict.sh", *places)

    def started() -> dict[str, Any]:
        found = (output / "cases").glob("*.json")
        return {path.stem: json.loads(path.read_text())["started"] for path in found}

    assert evaluation(source, stumbling, *command).returncode == 1
    assert rows(output / "results.csv") == {**FAILED, "z": ("ok", "1.0", "")}
    before = started()
    assert evaluation(source, stumbling, *command, "--resume").returncode == 1
    assert rows(output / "results.csv") == {**FAILED, "z": ("ok", "1.0", "")}
    assert evaluation(source, {}, *command, "--resume").returncode == 0
    found = rows(output / "results.csv")
    assert {(state, message) for state, _, message in found.values()} == {("ok", "")}
    assert started() == before


@pytest.fixture
def batch(tmp_path: Path, stumbling: dict[str, str]) -> Iterator[SmallBatch]:
    preload = {PRELOAD: "tests.evaluation.batch.processes"}
    one = SmallBatch(tmp_path / "batch", preload | stumbling)
    yield one
    one.end()


@pytest.mark.slow
def test_a_batch_goes_on_with_its_only_scorer(batch: SmallBatch) -> None:
    """Four such cases come before those of the team whose masks are sound."""
    for team in ("endless", "raises"):
        batch.add_folder(team, MASKS[team])
    batch.add_folder("sound", BEHAVIOURS["good"])
    batch.write_cases(2)
    options = ("--slots", 1, "--scorers", 1)
    assert batch.code(batch.start(*options)) == 1
    found = tables(batch.output)
    assert {one["dsc"] for one in found["sound"]} == {"1.0"}
    for team in ("endless", "raises"):
        assert [(one["status"], one["message"]) for one in found[team]] == [
            ("infra_error", SAID[team])
        ] * 2
        assert f"missing  {team}: case0, case1: {SAID[team]}\n" in batch.log()
    assert "gets nothing more" not in batch.log()
    before = {name: one["started"] for name, one in batch.records().items()}

    del batch.environment["PYTHONPATH"]
    assert batch.code(batch.start(*options)) == 0, batch.log()
    assert {one["accuracy"]["lesion_count"] for one in batch.records().values()} == {2}
    assert {name: one["started"] for name, one in batch.records().items()} == before
