"""`bench`: a few scans several times, and whether the submission makes its limits."""

import argparse
import contextlib
import sys
from pathlib import Path

from evaluation.cli import options
from evaluation.numbers import positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this command takes."""
    options.add_submission(parser)
    parser.add_argument("--scans", type=Path, required=True, help="a scan, or a folder of scans")
    parser.add_argument("--labels", type=Path, help="folder of NAME.nii.gz: masks are scored")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    parser.add_argument(
        "--repeat",
        type=positive(int),
        default=3,
        metavar="N",
        help="runs a scan (default 3)",
    )


def run(given: argparse.Namespace) -> int:
    """Measure, and say so; return 0 when the submission makes its limits."""
    from evaluation import json_file, scratch
    from evaluation.bench import bench
    from evaluation.cases import find
    from evaluation.gpu import devices
    from evaluation.trial import MeasuredRunner

    submission = options.submission_of(given)
    conditions = options.conditions_of(given, anonymised=False)
    cases = find(given.scans, given.labels)
    given.challenge.contract.check_cases(cases)
    gpu = devices.find(given.gpu)
    with (
        contextlib.closing(submission.runner(conditions, gpu)) as runner,
        scratch.folder(scratch.private()) as folder,
        MeasuredRunner(runner, conditions, folder, gpu) as measured,
    ):
        result = bench(measured, cases, given.repeat, sys.stdout)
        if given.json is not None:
            json_file.write(given.json, result)
        return 0 if result.passed else 1
