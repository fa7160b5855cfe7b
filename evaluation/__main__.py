"""Command line of the harness."""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from evaluation.batch import command as batch_command
from evaluation.bench import bench
from evaluation.cases import find
from evaluation.contracts import (
    FLARE,
    INPUT_SOCKET,
    OUTPUT_SOCKET,
    Contract,
    grand_challenge,
)
from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.harness import Plan, evaluate
from evaluation.page.command import add_report
from evaluation.ranking.command import add_rank
from evaluation.runners import LIMITS, Limits
from evaluation.score import score_folder
from evaluation.scoring.profiles import PROFILES
from evaluation.states import State
from evaluation.submission import Submission
from evaluation.trial import Rig


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return 0, 1 when a case or the run failed, 2 for bad usage."""
    given = parser().parse_args(arguments)
    # A batch system or a closed session must not leave a stranger's container running.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, signal.default_int_handler)
    try:
        return int(given.do(given))
    except (EvaluationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what `run` has measured is kept, see --resume", file=sys.stderr)
        return 130


def run(given: argparse.Namespace) -> int:
    """Evaluate one submission on many cases."""
    submission = submission_of(given)
    cases = find(given.cases, given.labels)
    submission.contract.check_cases(cases)
    plan = Plan(
        submission=submission,
        cases=cases,
        output=given.output,
        limits=limits_of(given),
        gpu=given.gpu,
        timeout_s=given.timeout,
        interval_s=given.interval,
        scoring=given.scoring,
        resume=given.resume,
    )
    records = evaluate(plan, sys.stdout)
    print(f"\n{(given.output / 'tables.md').read_text()}")
    print(f"results  {given.output / 'results.csv'}")
    return 0 if all(record.state is State.OK for record in records) else 1


def score(given: argparse.Namespace) -> int:
    """Score masks that are there already."""
    sound = score_folder(given.predictions, given.labels, given.output, given.scoring)
    return 0 if sound else 1


def measure(given: argparse.Namespace) -> int:
    """Run a few scans several times and say whether the submission makes its limits."""
    submission, limits = submission_of(given), limits_of(given)
    cases = find(given.scans)
    submission.contract.check_cases(cases)
    gpu = devices.find(given.gpu)
    with (
        contextlib.closing(submission.runner(limits, gpu)) as runner,
        # A container may leave what this user cannot remove.
        tempfile.TemporaryDirectory(prefix="flare-bench-", ignore_cleanup_errors=True) as work,
        Rig(
            runner,
            limits,
            given.timeout,
            Path(work),
            gpu,
            given.interval,
            contract=submission.contract,
        ) as rig,
    ):
        return 0 if bench(rig, cases, given.repeat, sys.stdout) else 1


def batch(given: argparse.Namespace) -> int:
    """Evaluate every archive of a folder on many cases, on all GPUs of this machine or cluster."""
    return batch_command.run(given, contract_of(given), limits_of(given))


def submission_of(given: argparse.Namespace) -> Submission:
    """Return the submission that the options name."""
    if given.command is not None and given.runner in ("docker", "apptainer"):
        raise EvaluationError(
            f"--command runs without an engine: leave out --runner {given.runner}"
        )
    if given.command is None and given.runner == "process":
        raise EvaluationError("--runner process needs --command, in the submission's own folder")
    if given.archive is None and given.runner == "apptainer":
        raise EvaluationError("--runner apptainer needs --archive: it has no images of its own")
    contract = contract_of(given)
    if given.command is not None and contract != FLARE:
        raise EvaluationError(
            f"--command runs in its own folder, and --contract {given.contract} has absolute paths:"
            " build an image"
        )
    return Submission(
        given.image,
        given.archive,
        given.command,
        contract=contract,
        apptainer=given.runner == "apptainer",
    )


def contract_of(given: argparse.Namespace) -> Contract:
    """Return the contract that the options name."""
    if given.contract == FLARE.name:
        if given.input_socket or given.output_socket:
            raise EvaluationError("sockets are Grand Challenge's: add --contract grand-challenge")
        return FLARE
    return grand_challenge(
        given.input_socket or [INPUT_SOCKET], given.output_socket or OUTPUT_SOCKET
    )


def limits_of(given: argparse.Namespace) -> Limits:
    """Return the profile's limits with what the options change of them."""
    limits = LIMITS[given.profile]
    memory_mib = given.memory or limits.memory_mib
    shm_mib = min(limits.shm_mib, int(memory_mib * contract_of(given).shm_share))
    return replace(limits, memory_mib=memory_mib, shm_mib=shm_mib)


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    whole = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    commands = whole.add_subparsers(
        required=True, metavar="run | batch | rank | report | score | bench"
    )

    one = commands.add_parser("run", help=run.__doc__, description=run.__doc__)
    one.set_defaults(do=run)
    _add_submission(one)
    one.add_argument("--cases", type=Path, required=True, help="folder of NAME_0000.nii.gz")
    one.add_argument("--labels", type=Path, required=True, help="folder of NAME.nii.gz")
    one.add_argument("--output", type=Path, required=True)
    one.add_argument("--resume", action="store_true", help="go on with what --output holds")
    _add_scoring(one)

    one = commands.add_parser("batch", help=batch.__doc__, description=batch.__doc__)
    one.set_defaults(do=batch)
    batch_command.add_arguments(one)
    _add_contract(one)
    _add_limits(one)
    _add_scoring(one)

    add_rank(commands)
    add_report(commands)

    one = commands.add_parser("score", help=score.__doc__, description=score.__doc__)
    one.set_defaults(do=score)
    one.add_argument("--predictions", type=Path, required=True, help="folder of NAME.nii.gz")
    one.add_argument("--labels", type=Path, required=True, help="folder of NAME.nii.gz")
    one.add_argument("--output", type=Path, required=True)
    _add_scoring(one)

    one = commands.add_parser("bench", help=measure.__doc__, description=measure.__doc__)
    one.set_defaults(do=measure)
    _add_submission(one)
    one.add_argument("--scans", type=Path, required=True, help="a scan, or a folder of scans")
    one.add_argument(
        "--repeat", type=_positive(int), default=3, metavar="N", help="runs a scan (default 3)"
    )
    return whole


def _add_submission(command: argparse.ArgumentParser) -> None:
    submission = command.add_mutually_exclusive_group(required=True)
    submission.add_argument("--image", help="name of an image that the engine has")
    submission.add_argument("--archive", type=Path, help="teamname.tar.gz, by docker save")
    submission.add_argument("--command", help='without an engine, here: "sh predict.sh"')
    command.add_argument(
        "--runner",
        choices=("docker", "apptainer", "process"),
        help="docker: what DOCKER_HOST names, Podman too; apptainer: has never been tried",
    )
    command.add_argument(
        "--gpu", metavar="UUID|none", help="default: the only one, if there is one"
    )
    _add_contract(command)
    _add_limits(command)


def _add_contract(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--contract",
        choices=(FLARE.name, "grand-challenge"),
        default=FLARE.name,
        help="where the image looks for its case, and what is called (default flare)",
    )
    command.add_argument(
        "--input-socket",
        action="append",
        metavar="SLUG",
        help=f"of Grand Challenge, one a channel (default {INPUT_SOCKET})",
    )
    command.add_argument(
        "--output-socket", metavar="SLUG", help=f"of Grand Challenge (default {OUTPUT_SOCKET})"
    )


def _add_limits(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--timeout",
        type=_positive(float),
        default=3600.0,
        metavar="S",
        help="a case's limit (default 3600)",
    )
    command.add_argument(
        "--profile",
        choices=sorted(LIMITS),
        default="sandbox",
        help="sandbox: no network, no capabilities, ...; flare: the organisers' own command line",
    )
    command.add_argument(
        "--memory",
        type=_positive(int),
        metavar="MIB",
        help="RAM of a case (default 28672, swap included)",
    )
    command.add_argument(
        "--interval",
        type=_positive(float),
        default=0.02,
        metavar="S",
        help="between GPU samples (0.02)",
    )


def _add_scoring(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--scoring", choices=sorted(PROFILES), default="flare24", help="default: flare24"
    )


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError as error:
            expected = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r}: not {expected}") from error
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}: must be above 0")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
