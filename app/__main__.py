"""Command line of the app: arguments and exit codes.

Exit code 0: every case has its mask. 1: at least one has none. 2: wrong arguments.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from app.environment import set_defaults
from app.lean.start import Progress, or_all_over_again
from app.run import Request, run
from volumes import VERSION
from volumes.command import exit_code

_TIME_BUDGET_HELP = "since process start (one case) or case start; larger steps if need be (off)"


def main(arguments: Sequence[str] | None = None, progress: Progress | None = None) -> int:
    """Segment every case of the input; returns the exit code.

    ``progress``, from `or_all_over_again`: the process may begin anew, so torch is imported without
    what is of no use; what the process before has done is not done again.
    """
    parser = _parser()
    request = Request(**vars(parser.parse_args(arguments)))
    if request.exact and request.time_budget is not None:
        parser.error("--time-budget may enlarge the step, so that the mask is not that of --exact")
    if request.exact and request.crop_to_body:
        parser.error("--crop-to-body moves the windows, so that the mask is not that of --exact")
    set_defaults()
    lean = progress is not None and not request.exact
    return run(request, progress or Progress(), lean)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app", description="Segment lesions in CT with a model exported from nnU-Net"
    )
    add = parser.add_argument
    add("--version", action="version", version=f"%(prog)s {VERSION}")
    add("--input", type=Path, required=True, help="a scan, or a folder of scans or of DICOM")
    add("--output", type=Path, required=True, help="the mask, or a folder for the masks")
    add("--series", metavar="UID", help="which to take, where a folder of DICOM holds several")
    add(
        "--model",
        metavar="NAME|DIR",
        help="in weights/, or a folder (the default is named in weights/default)",
    )
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--exact", action="store_true", help="nnU-Net's own arithmetic; slower")
    add("--step-size", type=_step_size, default=0.5, help="between windows, in patches (0.5)")
    add("--tta", action="store_true", help="mirror along the axes that training allowed")
    add("--probabilities", action="store_true", help="of each class too, beside the mask, as .npz")
    add(
        "--vram-budget", type=_positive_mib, metavar="MIB", help="on a GPU, context included (4096)"
    )
    add("--crop-to-body", action="store_true", help="spare the air around it (CT); masks differ")
    add("--skip-existing", action="store_true", help="leave cases whose mask is there, and whole")
    add("--time-budget", type=_seconds, metavar="S", help=_TIME_BUDGET_HELP)
    said = parser.add_mutually_exclusive_group().add_argument
    said("--quiet", action="store_true", help="nothing but warnings and errors, on stderr")
    said("--verbose", action="store_true", help="also what was read of model and scans")
    return parser


def _step_size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"should be more than 0 and at most 1, found {text!r}")
    return value


def _positive_mib(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"should be a whole number of MiB, found {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"should be a positive number of seconds, found {text!r}")
    return value


def command() -> NoReturn:
    """The command, by whichever name it was called; the process ends here."""
    _leave(exit_code(_called, "masks that are there are complete"))


def _called() -> int:
    """The exit code of the command line, of this process and of what it may become."""
    # As Python can be called again: a script on its stdin, say, is gone by then.
    as_module = ("-m", "app") in itertools.pairwise(sys.orig_argv)
    as_script = sys.argv[0] in sys.orig_argv and Path(sys.argv[0]).is_file()
    try:
        return or_all_over_again(lambda p: main(progress=p)) if as_module or as_script else main()
    except KeyboardInterrupt:
        _wait_for_threads()  # one that writes takes back what is not complete
        raise


def _wait_for_threads() -> None:
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.daemon:
            continue
        for _ in range(100):
            try:
                thread.join()
                break
            except RuntimeError:  # the interrupt came while it was being started
                time.sleep(0.01)


def _leave(code: int) -> NoReturn:
    """End the process at once: unloading torch takes 0.4 s, in which a GPU's memory is still held.

    Every file has been closed and every thread has ended by now.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    command()
