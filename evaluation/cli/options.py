"""Options that several commands share, and what they come to."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from evaluation import challenges
from evaluation.challenges import Challenge
from evaluation.conditions import INTERVAL_S, Conditions
from evaluation.errors import EvaluationError
from evaluation.numbers import positive
from evaluation.runners import WITHOUT_SANDBOX, Limits

if TYPE_CHECKING:
    from evaluation.cases import Case
    from evaluation.submission import Submission


def submission_of(given: argparse.Namespace) -> "Submission":
    """Return the submission that the options name."""
    from evaluation.submission import Submission

    contract = given.challenge.contract
    if given.command is not None and (contract.sockets or contract.command is None):
        raise EvaluationError(
            f"--command runs in its own folder, and {given.challenge.name} calls an image's entry"
            " point: build an image"
        )
    return Submission(given.image, given.archive, given.command)


def conditions_of(given: argparse.Namespace, *, anonymised: bool) -> Conditions:
    """Return what the options say of how a submission is run."""
    challenge = given.challenge
    limits = Limits() if given.sandbox == "on" else WITHOUT_SANDBOX
    memory_mib = given.memory or limits.memory_mib
    shm_mib = min(limits.shm_mib, int(memory_mib * challenge.contract.shm_share))
    return Conditions(
        challenge=challenge,
        limits=replace(limits, memory_mib=memory_mib, shm_mib=shm_mib),
        timeout_s=given.timeout or challenge.limits.timeout_s,
        interval_s=given.interval,
        anonymised=anonymised,
    )


def add_cases(command: argparse.ArgumentParser) -> None:
    """Add which cases there are, and what a submission is told of them."""
    command.add_argument("--cases", type=Path, required=True, help="folder of NAME_0000.nii.gz")
    command.add_argument("--labels", type=Path, required=True, help="folder of NAME.nii.gz")
    command.add_argument(
        "--anonymise",
        action="store_true",
        help="hand cases over as case_0001 and so on: nothing can be known by its name",
    )


def cases_of(given: argparse.Namespace) -> "list[Case]":
    """Return the cases that the options of `add_cases` name; raises EvaluationError."""
    from evaluation.cases import anonymised, find

    cases = find(given.cases.resolve(), given.labels.resolve())
    given.challenge.contract.check_cases(cases)
    return anonymised(cases) if given.anonymise else cases


def add_submission(command: argparse.ArgumentParser) -> None:
    """Add what names a submission, and how it is run."""
    submission = command.add_mutually_exclusive_group(required=True)
    submission.add_argument(
        "--image", help="name of an image that the engine has: what DOCKER_HOST names, Podman too"
    )
    submission.add_argument("--archive", type=Path, help="teamname.tar.gz, by docker save")
    submission.add_argument("--command", help='without an engine, here: "sh predict.sh"')
    command.add_argument(
        "--gpu", metavar="UUID|none", help="default: the only one, if there is one"
    )
    add_challenge(command)
    add_conditions(command)


def add_challenge(
    command: argparse.ArgumentParser, default: str | None = challenges.DEFAULT
) -> None:
    """Add which challenge's rules count; None: the results know."""
    command.add_argument(
        "--challenge",
        type=_challenge,
        default=default,
        metavar="NAME|FILE",
        help=f"{', '.join(challenges.built_in())}, or a TOML file like these (default:"
        f" {default or 'what the results were made for'})",
    )


def add_conditions(command: argparse.ArgumentParser) -> None:
    """Add what a case may use, and how it is measured."""
    command.add_argument(
        "--timeout",
        type=positive(float),
        metavar="S",
        help="a case's limit (default: the challenge's)",
    )
    command.add_argument(
        "--sandbox",
        choices=("on", "off"),
        default="on",
        help="on: no network, no capabilities, ...; off: the organisers' own command line, which"
        " limits memory alone",
    )
    command.add_argument(
        "--memory",
        type=positive(int),
        metavar="MIB",
        help="RAM of a case (default 28672, swap included)",
    )
    command.add_argument(
        "--interval",
        type=positive(float),
        default=INTERVAL_S,
        metavar="S",
        help=f"between GPU samples ({INTERVAL_S:g})",
    )


def _challenge(name: str) -> Challenge:
    try:
        return challenges.load(name)
    except EvaluationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
