"""One trial of app.lean.find: what to leave out on stdin, a line with what came of it on stdout.

``python -m app.lean.trial FILE``; FILE says at any moment, even if torch crashes for what it lacks,
of which module that was left out something was last asked for.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy  # noqa: F401 - which torch would else be the first to import

from app.environment import set_defaults
from app.lean.references import referred_to_by
from app.lean.stand_ins import LeftOut, StandIns, left_out_module

_LONGEST = 256  # name of a module
_LIBRARIES = ("torch", "torchgen", "functorch", "sympy", "mpmath", "networkx")
# Its modules neither hold nor refer to what is left out: without a GPU a trial would not find out.
_UNTRIED = "torch.cuda"


def main() -> None:
    """See app.lean.find.Trial for what is printed."""
    set_defaults()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for tensors so small they only wait
    left_out = json.load(sys.stdin)
    record = _Record()
    if not left_out:
        sys.meta_path.insert(0, record)
    stand_ins = _Told(left_out, Path(sys.argv[1]))
    answer: dict[str, Any] = {"results": {}, "error": "", "needed": []}
    try:
        began = time.process_time()
        from app.lean.path import results

        answer["seconds"] = time.process_time() - began
        answer["needed"] = sorted(set(_needed_untried(left_out)))
        if not answer["needed"]:
            stand_ins.seal()
            answer["results"] = results()
            if stand_ins.surprise is not None:  # which somebody caught
                raise stand_ins.surprise
    except BaseException as error:  # whatever it is, it is the answer
        where = traceback.extract_tb(error.__traceback__)[-1]
        answer["results"] = {}
        answer["error"] = f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"
    answer["imports"] = [pair for pair in record.imports if _has_source(pair[0])]
    print(json.dumps(answer))


def _needed_untried(left_out: LeftOut) -> Iterator[str]:
    """What is left out and what modules hold or refer to that are not tried."""
    for name in [n for n in sys.modules if _is_below(n, _UNTRIED)]:
        module = sys.modules[name]
        for value in (*vars(module).values(), *referred_to_by(module)):
            found = value if isinstance(value, str) else left_out_module(value)
            if found is not None and found in left_out:
                yield found


class _Told(StandIns):
    """Writes down what is touched, until the first Surprise."""

    def __init__(self, left_out: LeftOut, file: Path) -> None:
        super().__init__(left_out)
        self._file = os.open(file, os.O_WRONLY)

    def note(self, module: str) -> None:
        """Something of ``module`` is asked for."""
        if self.surprise is None:
            os.pwrite(self._file, module.encode().ljust(_LONGEST), 0)


class _Record(MetaPathFinder):
    """Finds nothing, and notes what is looked for and by which module of the same libraries."""

    def __init__(self) -> None:
        self.imports: list[tuple[str, str]] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None."""
        if _of_libraries(name):
            self.imports.append((name, _importer()))
        return None


def _importer() -> str:
    """The module of the libraries that is being executed; empty if there is none."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if frame.f_code.co_name == "<module>" and _of_libraries(name):
            return str(name)
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _has_source(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return str(getattr(spec, "origin", "")).endswith(".py")


def _of_libraries(name: str) -> bool:
    return name.partition(".")[0] in _LIBRARIES


def _is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


if __name__ == "__main__":
    main()
