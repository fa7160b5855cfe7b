"""`batch`: every archive of a folder on many cases, and what is said at the end."""

import argparse
import contextlib
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.batch.options import add_trust, add_workers
from evaluation.cli import options
from evaluation.errors import EvaluationError
from evaluation.numbers import natural, positive
from volumes.command import say

if TYPE_CHECKING:
    from evaluation.batch.cluster import Cluster

PATIENCE_S = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    parser.add_argument("submissions", type=Path, help="folder of teamname.tar.gz")
    options.add_cases(parser)
    parser.add_argument(
        "--output", type=Path, required=True, help="a folder a team; what it holds is gone on with"
    )
    parser.add_argument(
        "--image-limit",
        type=positive(int),
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
        "--again",
        nargs="+",
        default=(),
        metavar="TEAM",
        help="evaluate these anew; so is a team whose archive is another one. Earlier results are"
        " kept aside",
    )
    parser.add_argument(
        "--wait",
        type=natural,
        default=PATIENCE_S,
        metavar="S",
        help="for a scheduler or a worker that is not there (default 600)",
    )
    where = parser.add_argument_group("where: this machine, or a cluster")
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="tls://HOST:PORT of evaluation.batch.scheduler"
    )
    add_trust(where)
    add_workers(where)
    options.add_challenge(parser)
    options.add_conditions(parser)


def run(given: argparse.Namespace) -> int:
    """Do a batch; return 0 when every case of every submission has its score, otherwise 1."""
    from evaluation.batch import survey
    from evaluation.batch.batch import evaluate, summary

    if given.scheduler and (given.gpu or given.slots is not None or given.scorers is not None):
        raise EvaluationError(
            "--gpu, --slots and --scorers are for this machine: give them to"
            " evaluation.batch.worker, or leave out --scheduler"
        )
    teams = survey.entrants(
        given.submissions,
        given.output,
        options.conditions_of(given, anonymised=given.anonymise),
        image_mib=given.image_limit * 1024,
        overlap=given.overlap,
    )
    cases = options.cases_of(given)
    for case in cases:
        for remark in case.remarks:
            say(f"notice   {remark}")
    connect = functools.partial(_connect, given)
    outcome = evaluate(teams, cases, connect, given.wait, given.again, sys.stdout)
    print(f"\n{summary(teams, len(cases), outcome)}")
    say(f"results  {given.output}")
    return 1 if outcome.refused or outcome.missing else 0


@contextlib.contextmanager
def _connect(given: argparse.Namespace) -> Iterator["Cluster"]:
    from evaluation.batch import trust, worker
    from evaluation.batch.cluster import Cluster, embedded

    if given.scheduler:
        security = trust.chosen(given.scheduler, given)
        with Cluster(given.scheduler, given.wait, security) as cluster:
            yield cluster
        return
    wanted, said = worker.specs(given.gpu, given.slots, given.scorers)
    if said:
        say(f"notice   left out: {said}")
    security = trust.for_this_run()
    with (
        embedded(security) as address,
        worker.Workers(address, security, wanted),
        Cluster(address, given.wait, security) as cluster,
    ):
        yield cluster
