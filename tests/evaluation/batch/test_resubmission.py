"""What is kept aside when a team hands in another archive, whatever comes between."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from evaluation.batch import survey
from evaluation.batch.messages import Entrant
from evaluation.batch.resubmission import SUPERSEDED, keep_verdict, set_aside
from evaluation.store import Store
from tests.evaluation.challenges import CONDITIONS
from tests.evaluation.records import RECORD

OLD = ["cases/case.json", "logs/case.log", "submission.json"]


def entrant(folder: Path, name: str, archive: bytes) -> Entrant:
    path = folder / "submissions" / f"{name}.tar.gz"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(archive)
    results = folder / "results"
    (one,) = survey.entrants(path.parent, results, CONDITIONS, image_mib=1024, overlap=False)
    return one


def evaluated(folder: Path, name: str) -> Entrant:
    """A team with results of its first archive, which then hands in another."""
    first = entrant(folder, name, b"first")
    keep_verdict(first, "sha256:1", "")
    store = Store(first.folder)
    store.save(replace(RECORD, case="case"))
    store.log("case").parent.mkdir()
    store.log("case").touch()
    return entrant(folder, name, b"the second")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("moved", range(3))
def test_killed_while_it_moves_results_it_goes_on_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    team = evaluated(tmp_path, "one")
    rename, left = Path.rename, iter(range(moved))

    def killed(path: Path, to: Path) -> Path:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        list(set_aside([team], ()))
    monkeypatch.undo()
    assert len(list(set_aside([team], ()))) == 1
    assert files(team.folder) == [], "nothing of the first archive passes for the second's"
    kept = tmp_path / "results" / SUPERSEDED
    assert sorted(name.partition("/")[2] for name in files(kept)) == OLD


def test_a_team_that_cannot_be_called_so_moves_nothing(tmp_path: Path) -> None:
    team = evaluated(tmp_path, "ranking")
    assert list(set_aside([team], ())) == []
    assert files(team.folder) == OLD
