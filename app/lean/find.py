"""Find out what can be left out of the installed torch: ``python -m app.lean.find``.

By trial: first every module goes that importing torch and the app's path (app.lean.path) brings,
and that one which is then asked for comes back, until all goes through with the same results, bit
by bit, as with all of torch. Takes half a minute; what is found is written beside the app, for this
version of torch and of Python.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import app
from app.lean import start
from app.lean.start import FOUND, built_for
from volumes.files import write_whole

# What a GPU's path goes through as well: a machine that builds an image has none to try it on.
_KEPT = ("_C", "amp", "autograd", "backends", "cuda", "nn", "serialization", "storage", "version")


class SearchError(Exception):
    """One line: the app's path does not go through, or not in the same way."""


@dataclass(frozen=True)
class Trial:
    """The app's path gone through in a process of its own."""

    results: Mapping[str, str] = field(default_factory=dict)  # empty: it did not get to its end
    error: str = ""  # why it did not
    needed: Sequence[str] = ()  # what was last asked for of what is left out, or must not be
    imports: Sequence[tuple[str, str]] = ()  # modules in order, each with its importer among them
    seconds: float = 0.0  # of the processor, for importing torch and the app


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1: nothing was found, and the app will import all of torch."""
    parser = argparse.ArgumentParser(prog="python -m app.lean.find", description=__doc__)
    parser.add_argument(
        "--if-needed", action="store_true", help="not if it is known of this torch and Python"
    )
    if parser.parse_args(arguments).if_needed and start.left_out():
        return 0
    began = time.monotonic()
    try:
        full = attempt({})
        if not full.results:
            raise SearchError(f"the app's path does not go through with all of torch: {full.error}")
        left_out, lean = search(full)
        content = {**built_for(), "left_out": left_out}
        write_whole(FOUND, json.dumps(content, indent=0).encode())
    except (SearchError, OSError, ValueError) as error:
        print(f"lean import: nothing is left out: {error}", file=sys.stderr)
        with contextlib.suppress(OSError):
            FOUND.unlink(missing_ok=True)
        return 1
    print(
        f"lean import: torch {content['torch']} without {len(left_out)} of its modules takes "
        f"{lean.seconds:.2f} CPU seconds instead of {full.seconds:.2f} "
        f"(found in {time.monotonic() - began:.0f} s)"
    )
    return 0


def search(full: Trial) -> tuple[dict[str, list[str]], Trial]:
    """What may be left out, and the trial that shows it; ``full`` is the one with all of torch.

    Raises SearchError if results differ, or if a trial fails for something else than what it lacks.
    """
    children: dict[str, list[str]] = {}
    for module, importer in full.imports:
        children.setdefault(importer, []).append(module)
    out = {module for module, _ in full.imports if not _kept(module)}
    if not out:
        raise SearchError("torch is there before the app imports it (a .pth file, sitecustomize?)")
    while True:
        left_out = {module: children.get(module, []) for module in sorted(out)}
        trial = attempt(left_out)
        if trial.results == full.results:
            return left_out, trial
        if trial.results:
            parts = [part for part in full.results if trial.results[part] != full.results[part]]
            raise SearchError(f"results differ in {', '.join(parts)}")
        if not out.intersection(trial.needed):
            raise SearchError(f"a trial fails for something else: {trial.error}")
        out.difference_update(trial.needed)


def attempt(left_out: Mapping[str, Sequence[str]]) -> Trial:
    """Go through the app's path without ``left_out``."""
    with tempfile.NamedTemporaryFile("r") as touched:
        child = subprocess.run(
            [sys.executable, "-m", "app.lean.trial", touched.name],
            input=json.dumps(left_out),
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(app.__file__).parent.parent,
        )
        last = touched.read().split()
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        said = [*child.stderr.splitlines(), f"exit code {child.returncode}"]
        answer = {"error": f"it ends without an answer ({said[-1]})"}
    if not answer.get("results") and not answer.get("needed"):
        answer["needed"] = last
    return Trial(**answer)


def _kept(module: str) -> bool:
    """Whether it is not even tried."""
    library, _, rest = module.partition(".")
    return library == "torch" and rest.partition(".")[0] in ("", *_KEPT)


if __name__ == "__main__":
    sys.exit(main())
