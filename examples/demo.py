"""The demonstration (`make run`): a model, a real CT, and the harness that judges.

Fetches a chest CT with a tumour of the lung, cuts the box around the tumour out of it, builds the
image (or, where no engine answers or the image cannot be built, calls `sh predict.sh` as a process)
and evaluates it on both. A picture, a table of scores, time and memory, and all that the harness
keeps are in the output folder.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.errors import EvaluationError
from volumes.command import exit_code

if TYPE_CHECKING:
    from examples.demonstration import Settings


def parse(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> "Settings":
    """Read the command line; IMAGE_BUILD_ARGS is split as a shell would."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--cache", type=Path, default=Path("runs/samples"), help="keeps the scans")
    parser.add_argument("--runner", choices=("auto", "docker", "process"), default="auto")
    parser.add_argument("--gpu", metavar="UUID|none", help="default: the only one, if any")
    parser.add_argument(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for docker build, after the options in the variable IMAGE_BUILD_ARGS",
    )
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="a case's limit")
    given = parser.parse_args(arguments)
    from examples.demonstration import Settings  # not for --help: it brings the harness

    try:
        build_arguments = shlex.split(environment.get("IMAGE_BUILD_ARGS", ""))
    except ValueError as error:
        raise EvaluationError(f"IMAGE_BUILD_ARGS cannot be split into words: {error}") from error
    for argument in given.build_arg:
        build_arguments += ["--build-arg", argument]
    return Settings(
        output=given.output,
        cache=given.cache,
        runner=given.runner,
        gpu=given.gpu,
        build_arguments=build_arguments,
        timeout_s=given.timeout,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; return 0, or 1 when something failed (said in one line)."""

    def do() -> int:
        settings = parse(arguments, os.environ)
        from examples.demonstration import demonstrate

        return 0 if demonstrate(settings) else 1

    return exit_code(do)


if __name__ == "__main__":
    sys.exit(main())
