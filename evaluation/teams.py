"""Who takes part, and what there is of each: the folder that `batch`, `rank` and `report` share.

RESULTS_DIR/TEAM/ is what `run --output` writes, and may hold a submission.json besides: what became
of the team's archive. A refused team has no cases.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from msgspec import Struct

from evaluation import challenges, json_file, settings
from evaluation.challenges import Challenge
from evaluation.errors import EvaluationError
from evaluation.record import Record
from evaluation.store import Store
from volumes.files import entries, sha256

ENTRY = "submission.json"
RANKING = "ranking"  # the folder of the results that `rank` writes, and no team's

NO_TEAM = f"no team can be called {RANKING}, as `rank` writes a folder of that name"


class HandedIn(Struct, frozen=True, forbid_unknown_fields=True):
    """The file that a team handed in. While size and time stay, so does its content."""

    sha256: str
    size: int
    mtime_ns: int


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """What a team handed in, as its submission.json says."""

    archive: str
    image: str | None
    state: Literal["ok", "refused"]  # refused: it never ran
    message: str
    handed_in: HandedIn | None = None  # None: as an earlier version wrote it


@dataclass(frozen=True)
class Team:
    """One team's folder. entry: None where there is none."""

    name: str
    store: Store
    entry: Entry | None

    @property
    def is_refused(self) -> bool:
        """Whether its submission was not let in, so that it has no results."""
        return self.entry is not None and self.entry.state == "refused"

    def challenge(self) -> Challenge | None:
        """Return what it was run for; None where that is not said."""
        made_with = settings.load(self.store)
        return None if made_with is None else made_with.conditions.challenge

    def cases(self) -> list[str]:
        """Return the names of the cases that have a record, in order."""
        return [path.stem for path in entries(self.store.folder / "cases", "*.json")]

    def digest(self) -> str:
        """Return the SHA-256 of all records: what was made of them is old when this changes."""
        whole = hashlib.sha256()
        for case in self.cases():
            whole.update(os.fsencode(f"{case} {sha256(self.store.path(case))}\n"))
        return whole.hexdigest()

    def records(self) -> list[Record]:
        """Return all records; raises EvaluationError that names the file of a damaged one."""
        loaded = [self.store.load(case) for case in self.cases()]
        return [one for one in loaded if one is not None]


def find_teams(results: Path) -> tuple[list[Team], list[Path]]:
    """Return the teams of a results folder by name, and the folders that are no team's.

    Raises EvaluationError when the folder holds no team or one called ranking, or a
    submission.json is damaged.
    """
    if not results.is_dir():
        raise EvaluationError(f"{results}: no such folder; give the one that holds a folder a team")
    if (results / "cases").is_dir():
        raise EvaluationError(
            f"{results}: holds the cases of one run; give the folder above, which holds the teams"
        )
    teams, others = [], []
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        if folder.name.startswith("."):
            continue
        entry = read_entry(folder)
        has_cases = (folder / "cases").is_dir()
        if has_cases and folder.name == RANKING:
            raise EvaluationError(f"{folder}: {NO_TEAM}; rename the folder")
        if has_cases or entry is not None:
            teams.append(Team(folder.name, Store(folder), entry))
        elif folder.name != RANKING:
            others.append(folder)
    if not teams:
        raise EvaluationError(
            f"{results}: holds no team; a team is a folder with cases/, as `run --output"
            f" {results}/TEAM` writes it"
        )
    return teams, others


def challenge_of(teams: Sequence[Team]) -> Challenge:
    """Return what all teams were run for, the default where none says it.

    Raises EvaluationError when they differ.
    """
    found = {one: team.name for team in teams if (one := team.challenge()) is not None}
    if len(found) > 1:
        (one, here), (other, there), *_ = found.items()
        raise EvaluationError(
            f"{here} was run for {one.name}, {there} for {other.name}, or for other values of it;"
            " say with --challenge which counts"
        )
    return next(iter(found), None) or challenges.load(challenges.DEFAULT)


def read_entry(folder: Path) -> Entry | None:
    """Return what is known of the submission of a team's folder; None: nothing yet."""
    what = "what `batch` writes of a submission"
    return json_file.read(folder / ENTRY, Entry, what, remedy="repair or remove it")


def write_entry(folder: Path, entry: Entry) -> None:
    """Write submission.json."""
    json_file.write(folder / ENTRY, entry)
