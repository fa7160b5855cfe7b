"""A team that hands in another archive is evaluated anew; earlier results are kept aside.

Kept in RESULTS_DIR/.superseded/TEAM-1, TEAM-2, ..., which no command takes for a team.
"""

import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from evaluation.batch.messages import Entrant
from evaluation.errors import EvaluationError
from evaluation.store import LOCK
from evaluation.teams import ENTRY, Entry, HandedIn, read_entry, write_entry
from volumes.files import sha256

SUPERSEDED = ".superseded"


def handed_in(archive: Path, results: Path) -> HandedIn:
    """Return what an archive is; it is read only if it is not the file that is known."""
    facts = archive.lstat()
    entry = read_entry(results)
    known = entry.handed_in if entry else None
    if known and (known.size, known.mtime_ns) == (facts.st_size, facts.st_mtime_ns):
        return known
    digest = sha256(archive) if stat.S_ISREG(facts.st_mode) else ""  # anything else is refused
    return HandedIn(digest, facts.st_size, facts.st_mtime_ns)


def keep_verdict(team: Entrant, image: str | None, message: str) -> None:
    """Write what became of a team's archive; image: None: it is refused."""
    state: Literal["ok", "refused"] = "refused" if image is None else "ok"
    entry = Entry(str(team.archive), image, state, message, team.handed_in)
    write_entry(team.folder, entry)


def set_aside(teams: Sequence[Entrant], again: Collection[str]) -> Iterator[str]:
    """Move what is old out of the teams' folders, which are locked; yield a line for each.

    again: teams that are evaluated anew though their archive is the same. Raises EvaluationError
    when there is no such team.
    """
    if unknown := sorted(set(again) - {team.name for team in teams}):
        names = ", ".join(team.name for team in teams)
        raise EvaluationError(f"--again {', '.join(unknown)}: no such team; there are {names}")
    for team in teams:
        entry = read_entry(team.folder)
        if entry is None or team.fault:
            continue
        before = entry.handed_in
        is_other = before is not None and before.sha256 != team.handed_in.sha256
        if is_other or team.name in again:
            kept = _moved(team.folder)
            why = "another archive than before" if is_other else "asked for"
            yield f"{team.name} is evaluated anew ({why}); earlier results are in {kept}"
        elif before != team.handed_in:
            write_entry(team.folder, replace(entry, handed_in=team.handed_in))


def _moved(folder: Path) -> Path:
    """Move all but the lock of a team's folder, and return where it is.

    What says that it is old goes last: whoever is killed before leaves that to the next batch.
    """
    above = folder.parent / SUPERSEDED
    number = 1
    while (to := above / f"{folder.name}-{number}").exists():
        number += 1
    to.mkdir(parents=True)
    old = [path for path in folder.iterdir() if path.name != LOCK]
    for path in sorted(old, key=lambda path: path.name == ENTRY):
        path.rename(to / path.name)
    return to
