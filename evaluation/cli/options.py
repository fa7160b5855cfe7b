"""Options that several commands share, and what they come to."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from evaluation.contracts import (
    FLARE,
    INPUT_SOCKET,
    OUTPUT_SOCKET,
    Contract,
    grand_challenge,
)
from evaluation.errors import EvaluationError
from evaluation.runners import LIMITS, Limits
from evaluation.submission import Submission


def submission_of(given: argparse.Namespace) -> Submission:
    """Return the submission that the options name."""
    contract = contract_of(given)
    if given.command is not None and contract != FLARE:
        raise EvaluationError(
            f"--command runs in its own folder, and --contract {given.contract} has absolute paths:"
            " build an image"
        )
    return Submission(given.image, given.archive, given.command, contract=contract)


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
    add_contract(command)
    add_limits(command)


def add_contract(command: argparse.ArgumentParser) -> None:
    """Add what says where an image looks for its case."""
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


def add_limits(command: argparse.ArgumentParser) -> None:
    """Add what a case may use."""
    command.add_argument(
        "--timeout",
        type=positive(float),
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
        type=positive(int),
        metavar="MIB",
        help="RAM of a case (default 28672, swap included)",
    )
    command.add_argument(
        "--interval",
        type=positive(float),
        default=0.02,
        metavar="S",
        help="between GPU samples (0.02)",
    )


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return an argument type: a number of `kind` above 0."""

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
