"""A whole batch: every archive of a folder on every case, measured, scored, kept, tabulated."""

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from evaluation import harness
from evaluation.batch import survey
from evaluation.batch.board import Board
from evaluation.batch.cluster import Cluster
from evaluation.batch.dispatch import Dispatch
from evaluation.batch.messages import Entrant
from evaluation.batch.resubmission import keep_verdict, set_aside
from evaluation.cases import Case
from evaluation.record import Record
from evaluation.scratch import remove
from evaluation.states import State
from evaluation.store import Store
from evaluation.tables.markup import in_markdown, markdown_table
from volumes.text import one_line

SHOWN = 3  # cases in a line


@dataclass(frozen=True)
class BatchOutcome:
    """What a batch came to.

    records: of each team, whatever is complete. refused: teams that cannot be run, and why.
    missing: cases of the other teams that have no score, by team and case, and why.
    """

    records: Mapping[str, Sequence[Record]]
    refused: Mapping[str, str]
    missing: Mapping[tuple[str, str], str]


def evaluate(
    teams: Sequence[Entrant],
    cases: Sequence[Case],
    connect: Callable[[], contextlib.AbstractContextManager[Cluster]],
    patience_s: float,
    again: Collection[str],
    out: TextIO,
) -> BatchOutcome:
    """Do what is left of a batch; progress goes to `out`, the rest into the teams' folders.

    connect: gives the workers, once it is known that there is something for them. patience_s: for
    a worker to be there. again: teams that are evaluated anew. Raises EvaluationError when it
    cannot start, or the scheduler is gone for good; what was measured is kept, and the next call
    goes on with it.
    """
    stores = {team.name: Store(team.folder) for team in teams}
    with contextlib.ExitStack() as held:
        for store in stores.values():
            held.enter_context(store.locked())
        for line in set_aside(teams, again):
            print(one_line(f"notice   {line}"), file=out, flush=True)
        board = Board(*survey.left(teams, cases), overlap=teams[0].overlap)
        for team in teams:
            if team.fault:
                board.refused[team.name] = team.fault
                keep_verdict(team, None, team.fault)
        try:
            if not board.is_over:
                with connect() as cluster:
                    Dispatch(teams, cases, board, cluster, patience_s, out).all()
        finally:
            records = {team.name: tabulate(team, cases) for team in teams}
        missing = _missing(cases, records, board)
        if not missing:
            for store in stores.values():
                remove(store.work)
    return BatchOutcome(records, board.refused, missing)


def tabulate(team: Entrant, cases: Sequence[Case]) -> list[Record]:
    """Write the tables of what is complete; return it."""
    store = Store(team.folder)
    found = [one for case in cases if (one := store.load(case.name)) and one.is_complete]
    harness.tabulate(store, found, team.conditions.challenge.limits)
    return found


def _missing(
    cases: Sequence[Case], records: Mapping[str, Sequence[Record]], board: Board
) -> dict[tuple[str, str], str]:
    missing = {}
    for team, found in records.items():
        scored = {one.case for one in found if one.is_scored}
        unscorable = {one.case: one.message for one in found if not one.is_scored}
        for case in cases:
            if case.name not in scored and team not in board.refused:
                given_up = board.given_up.get((team, case.name))
                missing[team, case.name] = given_up or unscorable[case.name]
    return missing


def summary(teams: Sequence[Entrant], cases: int, outcome: BatchOutcome) -> str:
    """Return a table of the teams, and a line for each reason why something is missing."""
    rows = []
    for team in teams:
        states = Counter(one.state for one in outcome.records[team.name] if one.is_scored)
        scored, ok = states.total(), states.pop(State.OK, 0)
        failed = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        remark = "refused" if team.name in outcome.refused else failed
        rows.append((in_markdown(team.name), scored, ok, scored - ok, cases - scored, remark))
    head = ("team", "scored", "ok", "failed", "missing", "")
    lines = [markdown_table(head, rows, words=(0, 5))]
    for name, why in sorted(outcome.refused.items()):
        lines.append("\n" + one_line(f"refused  {name}: {why}"))
    for (name, why), missing_cases in _by_reason(outcome.missing).items():
        more = f" and {len(missing_cases) - SHOWN} more" if len(missing_cases) > SHOWN else ""
        shown = f"{', '.join(missing_cases[:SHOWN])}{more}"
        lines.append("\n" + one_line(f"missing  {name}: {shown}: {why}"))
    if outcome.missing:
        lines.append("\nMend that and give the same command again: only what is missing is run.")
    return "\n".join(lines)


def _by_reason(missing: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for (team, case), why in missing.items():
        found.setdefault((team, why), []).append(case)
    return found
