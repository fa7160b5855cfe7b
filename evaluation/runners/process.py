"""Runs a submission without a container: `sh predict.sh` in a copy of the contract's folders."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.runners import Outcome

PARTS = ("app", "weights", "predict.sh")


def run(
    work: Path, log: Path, *, source: Path, environment: Mapping[str, str], timeout_s: float
) -> Outcome:
    """Run `source`'s predict.sh on `work/inputs`; masks are expected in `work/outputs`.

    work: holds inputs/ and outputs/ and receives links to the submission's app/, weights/ and
    predict.sh, so that it looks like the image's /workspace. log: receives stdout and stderr.
    environment: passed on, with the running Python's folder put first on PATH.
    Raises EvaluationError when `source` is not a submission.
    """
    for part in PARTS:
        if not (source / part).exists():
            raise EvaluationError(f"{source / part} is missing: a submission has {PARTS}")
        (work / part).symlink_to((source / part).resolve())
    path = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
    with log.open("wb") as sink:
        start = time.perf_counter()
        # A session of its own: at the time limit its children go with it.
        process = subprocess.Popen(
            ["sh", "predict.sh"],
            cwd=work,
            env={**environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        exit_code: int | None = None
        try:
            exit_code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if exit_code is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return Outcome(time.perf_counter() - start, exit_code)
