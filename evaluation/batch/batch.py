"""A whole batch: every archive of a folder on every case, measured, scored, kept, tabulated."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from evaluation import harness
from evaluation.batch import survey
from evaluation.batch.board import Board
from evaluation.batch.cluster import Cluster
from evaluation.batch.dispatch import Dispatch
from evaluation.batch.job import Team
from evaluation.cases import Case
from evaluation.record import Record
from evaluation.store import Store
from evaluation.trial import remove


@dataclass(frozen=True)
class Outcome:
    """What a batch came to.

    records: of each team, whatever is complete. refused: teams that cannot be run, and why.
    missing: cases of the other teams that have no score, by team and case, and why.
    """

    records: Mapping[str, Sequence[Record]]
    refused: Mapping[str, str]
    missing: Mapping[tuple[str, str], str]


def evaluate(
    teams: Sequence[Team],
    cases: Sequence[Case],
    connect: Callable[[], contextlib.AbstractContextManager[Cluster]],
    patience_s: float,
    out: TextIO,
) -> Outcome:
    """Do what is left of a batch; progress goes to `out`, the rest into the teams' folders.

    connect: gives the workers, once it is known that there is something for them. patience_s: for
    a worker to be there. Raises EvaluationError when it cannot start, or the scheduler is gone for
    good; what was measured is kept, and the next call goes on with it.
    """
    stores = {team.name: Store(team.folder) for team in teams}
    with contextlib.ExitStack() as held:
        for store in stores.values():
            held.enter_context(store.locked())
        board = Board(*survey.left(teams, cases), overlap=teams[0].conditions.overlap)
        try:
            if not board.is_over:
                with connect() as cluster:
                    Dispatch(teams, cases, board, cluster, patience_s, out).all()
        finally:
            records = {name: tabulate(store, cases) for name, store in stores.items()}
        missing = _missing(cases, records, board)
        if not missing:
            for store in stores.values():
                remove(store.work)
    return Outcome(records, board.refused, missing)


def tabulate(store: Store, cases: Sequence[Case]) -> list[Record]:
    """Write the tables of what is complete; return it."""
    found = [one for case in cases if (one := store.load(case.name)) and one.is_complete]
    harness.tabulate(store, found)
    return found


def _missing(
    cases: Sequence[Case], records: Mapping[str, Sequence[Record]], board: Board
) -> dict[tuple[str, str], str]:
    missing = {}
    for team, found in records.items():
        scored = {one.case for one in found if one.is_scored}
        for case in cases:
            if case.name not in scored and team not in board.refused:
                missing[team, case.name] = board.given_up[team, case.name]
    return missing
