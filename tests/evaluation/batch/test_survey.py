"""What there is to do, found before anything runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from evaluation import settings
from evaluation.batch import survey
from evaluation.batch.messages import Entrant
from evaluation.cases import Case, find
from evaluation.errors import EvaluationError
from evaluation.states import State
from evaluation.store import Store
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.records import ACCURACY, RECORD
from tests.submissions import SHAPE, save, write_cases
from volumes.files import sha256


@pytest.fixture
def cases(tmp_path: Path) -> list[Case]:
    return find(*write_cases(tmp_path, ["a", "b", "c"]))


def teams(folder: Path, *archives: str) -> list[Entrant]:
    submissions = folder / "submissions"
    submissions.mkdir()
    for name in archives:
        (submissions / name).touch()
    return survey.entrants(
        submissions, folder / "results", CONDITIONS, image_mib=1024, overlap=False
    )


def keep(team: Entrant, case: Case, *, state: State = State.OK, scored: bool = True) -> None:
    assert case.reference is not None
    record = structs.replace(
        RECORD,
        case=case.name,
        state=state,
        scans_sha256=tuple(sha256(scan) for scan in case.scans),
        reference_sha256=sha256(case.reference),
        accuracy=ACCURACY if scored else None,
    )
    Store(team.folder).save(record)


def test_every_archive_is_a_team_by_its_name_up_to_the_first_dot(tmp_path: Path) -> None:
    found = teams(tmp_path, "b.v2.tar.gz", "Alpha.tar.gz", ".hidden.tar.gz", "notes.txt")
    assert [team.name for team in found] == ["alpha", "b"]
    assert found[1].archive == tmp_path / "submissions" / "b.v2.tar.gz"
    assert found[1].folder == tmp_path / "results" / "b"


def test_two_archives_of_one_team_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"a\.tar\.gz and a\.v2\.tar\.gz are both team a"):
        teams(tmp_path, "a.tar.gz", "a.v2.tar.gz")


def test_a_link_is_handed_on_as_the_link_that_it_is(tmp_path: Path) -> None:
    (one,) = teams(tmp_path, "a.tar.gz")
    one.archive.rename(tmp_path / "elsewhere.tar.gz")
    one.archive.symlink_to(tmp_path / "elsewhere.tar.gz")
    (linked,) = survey.entrants(
        one.archive.parent, tmp_path, CONDITIONS, image_mib=one.image_mib, overlap=one.overlap
    )
    assert linked.archive == one.archive


def test_a_folder_without_archives_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"submissions: holds no \.tar\.gz file"):
        teams(tmp_path)
    with pytest.raises(EvaluationError, match="none: no such folder"):
        survey.entrants(tmp_path / "none", tmp_path, CONDITIONS, image_mib=1, overlap=False)


def test_what_is_kept_is_not_to_be_done_again(tmp_path: Path, cases: list[Case]) -> None:
    one, two = teams(tmp_path, "one.tar.gz", "two.tar.gz")
    keep(one, cases[0])
    keep(one, cases[1], scored=False)
    keep(two, cases[0], state=State.INFRA_ERROR, scored=False)
    run, unscored = survey.left([one, two], cases)
    assert run == {"one": ["c"], "two": ["a", "b", "c"]}
    assert unscored == {"one": ["b"], "two": []}


def test_other_conditions_are_refused_before_anything_runs(
    tmp_path: Path, cases: list[Case]
) -> None:
    (team,) = teams(tmp_path, "one.tar.gz")
    made_with = settings.settings_of({"image_digest": "sha256:1"}, CONDITIONS, "each worker's own")
    settings.save(Store(team.folder), made_with)
    assert survey.left([team], cases)[0] == {"one": ["a", "b", "c"]}
    other = replace(team, conditions=structs.replace(CONDITIONS, timeout_s=61.0))
    with pytest.raises(EvaluationError, match=r"timeout_s was 3600\.0, is 61\.0"):
        survey.left([other], cases)


def test_a_reference_that_cannot_be_used_is_found_now(tmp_path: Path, cases: list[Case]) -> None:
    (team,) = teams(tmp_path, "one.tar.gz")
    save(tmp_path / "labels" / "b.nii.gz", np.full(SHAPE, 7, np.uint8))
    with pytest.raises(EvaluationError, match=r"b\.nii\.gz: holds labels from 7 to 7"):
        survey.left([team], cases)


def test_a_scan_that_was_replaced_is_found_now(tmp_path: Path, cases: list[Case]) -> None:
    (team,) = teams(tmp_path, "one.tar.gz")
    keep(team, cases[0])
    save(cases[0].scans[0], np.ones(SHAPE, np.int16))
    with pytest.raises(EvaluationError, match=r"a_0000\.nii\.gz: is not the scan"):
        survey.left([team], cases)
