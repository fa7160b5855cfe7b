"""`batch`: every archive of a folder on many cases, and what is said at the end."""

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evaluation.batch import survey, trust, worker
from evaluation.batch.batch import Outcome, evaluate
from evaluation.batch.cluster import Cluster, embedded
from evaluation.batch.job import Conditions, Team
from evaluation.cases import find
from evaluation.cli import options
from evaluation.cli.score import add_scoring
from evaluation.errors import EvaluationError
from evaluation.states import State
from evaluation.tables.markup import plain

SHOWN = 3  # cases in a line
PATIENCE_S = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("submissions", type=Path, help="folder of teamname.tar.gz")
    parser.add_argument("--cases", type=Path, required=True, help="folder of NAME_0000.nii.gz")
    parser.add_argument("--labels", type=Path, required=True, help="folder of NAME.nii.gz")
    parser.add_argument(
        "--output", type=Path, required=True, help="a folder a team; what it holds is gone on with"
    )
    parser.add_argument(
        "--image-limit",
        type=worker.at_least(1),
        default=40,
        metavar="GIB",
        help="an image is refused beyond (default 40)",
    )
    parser.add_argument(
        "--overlap",
        action="store_true",
        help="score, load and remove images also beside timed runs of the same machine",
    )
    parser.add_argument(
        "--wait",
        type=worker.at_least(0),
        default=PATIENCE_S,
        metavar="S",
        help="for a scheduler or a worker that is not there (default 600)",
    )
    where = parser.add_argument_group("where: this machine, or a cluster")
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="tls://HOST:PORT of evaluation.batch.scheduler"
    )
    trust.add_arguments(where)
    worker.add_arguments(where)
    options.add_contract(parser)
    options.add_limits(parser)
    add_scoring(parser)


def run(given: argparse.Namespace) -> int:
    """Do a batch; return 0 when every case of every submission has its score, otherwise 1."""
    contract = options.contract_of(given)
    if given.scheduler and (given.gpu or given.slots is not None or given.scorers is not None):
        raise EvaluationError(
            "--gpu, --slots and --scorers are for this machine: give them to"
            " evaluation.batch.worker, or leave out --scheduler"
        )
    conditions = Conditions(
        limits=options.limits_of(given),
        timeout_s=given.timeout,
        interval_s=given.interval,
        scoring=given.scoring,
        image_mib=given.image_limit * 1024,
        overlap=given.overlap,
        contract=contract,
    )
    teams = survey.teams_in(given.submissions, given.output, conditions)
    cases = find(given.cases.resolve(), given.labels.resolve())
    contract.check_cases(cases)
    for case in cases:
        if case.remark:
            print(f"notice   {case.remark}")
    outcome = evaluate(teams, cases, lambda: _connect(given), given.wait, sys.stdout)
    print(f"\n{summary(teams, len(cases), outcome)}")
    print(f"results  {given.output}")
    return 1 if outcome.refused or outcome.missing else 0


@contextlib.contextmanager
def _connect(given: argparse.Namespace) -> Iterator[Cluster]:
    if given.scheduler:
        security = trust.chosen(given.scheduler, given)
        with Cluster(given.scheduler, given.wait, security) as cluster:
            yield cluster
        return
    wanted, said = worker.specs(given.gpu, given.slots, given.scorers)
    if said:
        print(f"notice   left out: {said}")
    security = trust.for_this_run()
    with (
        embedded(security) as address,
        worker.Workers(address, security, wanted),
        Cluster(address, given.wait, security) as cluster,
    ):
        yield cluster


def summary(teams: Sequence[Team], cases: int, outcome: Outcome) -> str:
    """Return a table of the teams, and a line for each reason why something is missing."""
    rows = []
    for team in teams:
        states = Counter(one.state for one in outcome.records[team.name] if one.is_scored)
        scored, ok = states.total(), states.pop(State.OK, 0)
        failed = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        remark = "refused" if team.name in outcome.refused else failed
        rows.append((team.name, scored, ok, scored - ok, cases - scored, remark))
    head = ("team", "scored", "ok", "failed", "missing", "")
    lines = [plain(head, rows, words=(0, 5))]
    lines += [f"\nrefused  {name}: {why}" for name, why in sorted(outcome.refused.items())]
    for (name, why), missing_cases in _by_reason(outcome.missing).items():
        more = f" and {len(missing_cases) - SHOWN} more" if len(missing_cases) > SHOWN else ""
        lines.append(f"\nmissing  {name}: {', '.join(missing_cases[:SHOWN])}{more}: {why}")
    if outcome.missing:
        lines.append("\nMend that and give the same command again: only what is missing is run.")
    return "\n".join(lines)


def _by_reason(missing: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for (team, case), why in missing.items():
        found.setdefault((team, why), []).append(case)
    return found
