"""Import torch without what was found to be of no use, and begin anew with all of it if need be."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.lean.stand_ins import LeftOut, StandIns, Surprise

FULL_IMPORT = "FULL_IMPORT"  # the environment variable that asks for all of torch, if not empty
_PROGRESS = "PROGRESS_BEFORE_FULL_IMPORT"  # for the process itself, when it begins anew
FOUND = Path(__file__).with_name("left_out.json")

# What a stand-in that was stored while torch was imported may lead to.
_CONSEQUENCES = (TypeError, AttributeError, NameError, ImportError, NotImplementedError)

_stand_ins: StandIns | None = None


def built_for() -> dict[str, str]:
    """The torch and Python that a list of modules holds for; torch is not imported.

    Raises OSError or ValueError where there is no torch that says its version.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise ValueError("torch is not installed")
    text = Path(spec.origin).with_name("version.py").read_text()
    version = re.search(r"""^__version__ = ['"](.+)['"]$""", text, re.MULTILINE)
    if version is None:
        raise ValueError(f"{spec.origin}: no version beside it")
    return {"torch": version[1], "python": sys.version.split()[0]}


def left_out() -> LeftOut:
    """What to leave out of the installed torch; nothing if that was not found out for it."""
    if not FOUND.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(FOUND.read_text())
        same = {key: found[key] for key in ("torch", "python")} == built_for()
        return found["left_out"] if same else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


@contextlib.contextmanager
def torch_import(lean: bool) -> Iterator[None]:
    """Within it torch is imported; if ``lean``, without what is known to be of no use.

    ``lean`` only below `or_all_over_again`. Raises Surprise if the import fails for it.
    """
    global _stand_ins
    without = left_out() if lean and not os.environ.get(FULL_IMPORT) else {}
    if without and "torch" not in sys.modules:
        _stand_ins = StandIns(without)
    with _beside_reading():
        try:
            yield
        except Exception as error:
            if _stand_ins is None:
                raise
            raise Surprise(f"{type(error).__name__}: {error}") from error
    if _stand_ins is not None:
        _stand_ins.seal()


@contextlib.contextmanager
def _beside_reading() -> Iterator[None]:
    """Import quickly, and let threads that inflate a scan have their turn as often as they ask.

    By hand on two cores of an EPYC, 512 x 512 x 554 voxels (120 MB) and a lean import were both
    there after 1.02 s with Python's own 5 ms, 0.68 with 0.2 ms, 0.73 with all inflated in one call.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    gc.disable()  # hundreds of thousands of objects, none of which will ever be garbage
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        sys.setswitchinterval(interval)


def reconsider(error: Exception) -> None:
    """Raise Surprise if ``error`` may be due to what was left out."""
    if _stand_ins is None:
        return
    if _stand_ins.surprise is not None:  # what a library has made of it
        raise _stand_ins.surprise
    if isinstance(error, _CONSEQUENCES):
        raise Surprise(f"{type(error).__name__}: {error}") from error


@dataclass
class Progress:
    """How far a process has come, for the one that it becomes if it begins anew."""

    under_way: str = ""  # the mask of the case under way; those before it are done
    began_s: float = 0.0  # that case, on CLOCK_BOOTTIME
    exit_code: int = 0  # so far
    again: bool = False  # this is not the first life

    @classmethod
    def before(cls) -> Progress:
        """Of the process before this one; nothing if it did not begin anew."""
        try:
            return cls(**json.loads(os.environ[_PROGRESS]), again=True)
        except (KeyError, ValueError, TypeError):
            return cls()

    def as_json(self) -> str:
        """For `before`."""
        known = asdict(self)
        del known["again"]
        return json.dumps(known)


def or_all_over_again(main: Callable[[Progress], int]) -> int:
    """``main``, which notes its progress; at a surprise the process begins anew, with all of torch.

    It keeps its number, its start time, arguments and open streams.
    """
    progress = Progress.before()
    surprise: Surprise | None = None
    try:
        code = _reconsidered(main, progress)
    except Surprise as raised:
        surprise = raised
    if surprise is None and _stand_ins is not None:
        surprise = _stand_ins.surprise
    if surprise is None:
        return code
    line = (
        f"warning: torch was imported without something that is needed ({surprise}); beginning "
        "anew with all of it (python -m app.lean.find finds out again what can be left out)"
    )
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
    os.environ |= {FULL_IMPORT: "1", _PROGRESS: progress.as_json()}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _reconsidered(main: Callable[[Progress], int], progress: Progress) -> int:
    try:
        return main(progress)
    except Exception as error:
        reconsider(error)
        raise
