"""Who takes part, and what there is of each: the folder that `batch` and `rank` share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.results import Record, Store
from evaluation.scoring.profiles import PROFILES

RANKING = "ranking"  # the one folder of the results that is not a team's
DEFAULT_SCORING = "flare24"  # as `run` has it


@dataclass(frozen=True)
class Entry:
    """What a team handed in, as its submission.json says; refused: it never ran."""

    archive: str
    image: str | None
    state: str  # ok, refused
    message: str


@dataclass(frozen=True)
class Team:
    """One team's folder, as `run --output` writes it. entry: None where there is none."""

    name: str
    store: Store
    entry: Entry | None

    def cases(self) -> list[str]:
        """Return the names of the cases that have a record, in order."""
        return sorted(path.stem for path in (self.store.folder / "cases").glob("*.json"))

    def lesion_label(self) -> int:
        """Return the label of lesions in the team's masks, as its run.json has them scored."""
        try:
            settings = json.loads(self.store.settings.read_text())
            return PROFILES[settings["scoring"]].lesion_label
        except FileNotFoundError:
            return PROFILES[DEFAULT_SCORING].lesion_label
        except (ValueError, TypeError, KeyError) as error:
            raise EvaluationError(
                f"{self.store.settings}: not what `run` writes ({error!r}); repair or remove it"
            ) from error

    def records(self) -> list[Record]:
        """Return all records; raises EvaluationError that names the file of a damaged one."""
        loaded = [self.store.load(case) for case in self.cases()]
        return [one for one in loaded if one is not None]


def find_teams(results: Path) -> tuple[list[Team], list[Path]]:
    """Return the teams of a results folder by name, and the folders that are nobody's.

    Raises EvaluationError when the folder holds no team, or a submission.json is damaged.
    """
    if not results.is_dir():
        raise EvaluationError(f"{results}: no such folder; give the one that holds a folder a team")
    if (results / "cases").is_dir():
        raise EvaluationError(
            f"{results}: holds the cases of one run; give the folder above, which holds the teams"
        )
    teams, others = [], []
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        if folder.name == RANKING or folder.name.startswith("."):
            continue
        entry = _entry(folder / "submission.json")
        if entry is None and not (folder / "cases").is_dir():
            others.append(folder)
        else:
            teams.append(Team(folder.name, Store(folder), entry))
    if not teams:
        raise EvaluationError(
            f"{results}: holds no team; a team is a folder with cases/, as `run --output"
            f" {results}/TEAM` writes it"
        )
    return teams, others


def _entry(path: Path) -> Entry | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        entry = Entry(**content)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise EvaluationError(
            f"{path}: not what `batch` writes of a submission ({error}); repair or remove it"
        ) from error
    return entry
