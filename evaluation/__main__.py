"""Command line of the harness."""

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence

from volumes import VERSION
from volumes.command import exit_code

# What each does; evaluation.cli has a file of each name.
COMMANDS = {
    "run": "Evaluate one submission on many cases.",
    "batch": "Evaluate every archive of a folder on many cases, on all GPUs of this machine or"
    " cluster.",
    "rank": "Rank all teams by what `run` has measured, and say how sure the ranking is.",
    "report": "Make one HTML file of what all teams came to, to be opened by anybody, anywhere.",
    "score": "Score masks that are there already.",
    "bench": "Run a few scans several times and say whether the submission makes its limits.",
}
# What is said of an interrupt.
KEPT = {
    "run": "what was measured is kept, see --resume",
    "batch": "what was measured is kept, and the same command goes on with it",
}
# Options of earlier versions, and what there is instead.
_CHALLENGE = "--challenge NAME, or FILE for one of your own"
RENAMED = {
    "--scoring": _CHALLENGE,
    "--contract": _CHALLENGE,
    "--input-socket": "input_sockets in a --challenge FILE",
    "--output-socket": "output_socket in a --challenge FILE",
    "--profile": "--sandbox on, or off",
    "--runner": "--command, or --image or --archive for an engine",
}
RENAMED_IN_RANK = {"--profile": f"{_CHALLENGE}; flare24-without-gpu is --without-gpu"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return 0, 1 when a case or the run failed, 2 for bad usage."""

    words = sys.argv[1:] if arguments is None else arguments

    def do() -> int:
        given = _parsed(words)
        # A batch system or a closed session must not leave a stranger's container running.
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                signal.signal(number, signal.default_int_handler)
        return int(given.do(given))

    return exit_code(do, KEPT.get(_called(words) or "", ""))


def _called(words: Sequence[str]) -> str | None:
    return next((word for word in words if not word.startswith("-")), None)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; only the file of the command that is called is imported."""
    whole = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    whole.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    commands = whole.add_subparsers(required=True, metavar=" | ".join(COMMANDS))
    called = _called(arguments)
    for name, does in COMMANDS.items():
        one = commands.add_parser(name, help=does, description=does)
        one.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
        if name == called:
            file = importlib.import_module(f"evaluation.cli.{name}")
            file.add_arguments(one)
            one.set_defaults(do=file.run)
    renamed = RENAMED_IN_RANK if called == "rank" else RENAMED
    for option in (word.partition("=")[0] for word in arguments):
        if option in renamed:
            whole.exit(2, f"error: {option} is replaced by {renamed[option]}\n")
    return whole.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
