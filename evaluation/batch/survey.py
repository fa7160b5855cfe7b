"""What there is to do: the archives of a folder, and what an earlier batch has done of each."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from evaluation import harness, settings
from evaluation.batch.messages import Entrant
from evaluation.batch.resubmission import handed_in
from evaluation.cases import Case
from evaluation.conditions import Conditions
from evaluation.errors import EvaluationError
from evaluation.parallel import parallel_map
from evaluation.runners.images import team_of
from evaluation.scoring.assess import reference_of
from evaluation.scoring.rules import ScoringRules
from evaluation.states import State
from evaluation.store import Store
from evaluation.teams import NO_TEAM, RANKING
from volumes.files import entries, sha256

SUFFIX = ".tar.gz"
# What an engine takes: https://github.com/distribution/reference, one path component.
IMAGE_NAME = re.compile(r"[a-z0-9]+(?:(?:_|__|-+)[a-z0-9]+)*")


def entrants(
    folder: Path, output: Path, conditions: Conditions, *, image_mib: int, overlap: bool
) -> list[Entrant]:
    """Return the submissions of a folder, by name; each has a folder of its own in `output`.

    Raises EvaluationError when there are none, or two of one name.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder")
    teams: dict[str, Entrant] = {}
    for archive in entries(folder.resolve(), f"*{SUFFIX}"):
        if archive.name[0] == ".":
            continue
        name = team_of(archive)
        if name in teams:
            raise EvaluationError(
                f"{folder}: {teams[name].archive.name} and {archive.name} are both team {name};"
                " rename one, and its image"
            )
        results = (output / name).resolve()
        teams[name] = Entrant(
            name,
            archive,
            results,
            conditions,
            image_mib,
            handed_in=handed_in(archive, results),
            fault=_fault(name),
            overlap=overlap,
        )
    if not teams:
        raise EvaluationError(f"{folder}: holds no {SUFFIX} file")
    return list(teams.values())


def _fault(name: str) -> str:
    if name == RANKING:
        return f"{NO_TEAM}; rename archive and image"
    if not IMAGE_NAME.fullmatch(name):
        return (
            f"{ascii(name)[1:-1]} cannot be an image's name; rename archive and image, with a to z,"
            " 0 to 9, and single _ or - between them"
        )
    return ""


def left(
    teams: Sequence[Entrant], cases: Sequence[Case]
) -> tuple[Mapping[str, list[str]], Mapping[str, list[str]]]:
    """Return, for each team, the cases that are to be run, and those that only lack their score.

    Raises EvaluationError when a file cannot be used, was replaced, or is of other conditions.
    """
    checksum = functools.cache(sha256)  # of a scan once, not once a team
    run: dict[str, list[str]] = {team.name: [] for team in teams}
    unscored: dict[str, list[str]] = {team.name: [] for team in teams}
    wanted: dict[tuple[Path, ScoringRules], None] = {}
    for team in (team for team in teams if not team.fault):
        store = Store(team.folder)
        _check_settings(store, team.conditions)
        for case in cases:
            one = harness.kept(store, case, checksum)
            if one is not None and one.is_scored:
                continue
            again = one is None or one.state is State.INFRA_ERROR
            (run if again else unscored)[team.name].append(case.name)
            assert case.reference is not None
            wanted[case.reference, team.conditions.challenge.scoring] = None
    for _ in parallel_map(_check_reference, list(wanted)) if wanted else ():
        pass
    return run, unscored


def _check_settings(store: Store, conditions: Conditions) -> None:
    """See that results go on as they began; whether the image is the same, a worker will say."""
    before = settings.load(store)
    if before is not None:
        settings.check(store, replace(before, conditions=conditions), resume=True)


def _check_reference(wanted: tuple[Path, ScoringRules]) -> None:
    reference_of(*wanted)
