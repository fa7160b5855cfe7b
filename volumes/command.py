"""What all commands share: output that cannot fail, and an end in one line, whatever happens.

It is no file format; it is here because every room, and the image, has this package.
"""

import contextlib
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TextIO

from volumes.errors import UserError
from volumes.files import discard_parts
from volumes.text import one_line, printable, shortened

_PATIENCE_S = 1.5  # for what a signal ends
ERASE_LINE = "\r\x1b[K"  # for a line that lives; the one sequence that is printed
_MOST = 300  # characters of a line on what is wrong
_SCRIPTS = "flare-"  # what the names of ours begin with


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def prepare(room: str, heeded: signal.Signals | None = None) -> None:
    """Make the process fit for whatever happens; does nothing unless it is a command of this room.

    A room calls this with its name when it is imported: main() comes later, and imports take
    seconds. What is printed when nobody reads any more, or the disk is full, is lost, and the work
    goes on. heeded: a signal that ends it as Ctrl-C does, and within two seconds, whatever it is
    at.
    """
    if not _is_command(room):
        return
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers
        if getattr(sys, name) is None:  # else the next file gets its number, and is printed into
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115
    sys.stdout, sys.stderr = _Output(sys.stdout), _Output(sys.stderr)
    if not sys.flags.dev_mode:
        sys.excepthook = _last_words
        warnings.showwarning = _warn_of_library
    if heeded is not None:
        signal.signal(heeded, _terminate)
        _end_soon_after(heeded)


def _is_command(room: str) -> bool:
    """Whether a script of ours runs, or Python looks for a module of the room for its -m."""
    program, *arguments = sys.argv
    if program == "-m":
        module = sys.orig_argv[-1 - len(arguments)]
        return module.partition(".")[0] == room
    return Path(program).name.startswith(_SCRIPTS)


def exit_code(do: Callable[[], int | None], interrupted: str = "") -> int:
    """Do what a command line asks for; what goes wrong becomes one line, and 1, 130 or 143.

    interrupted: what to say of an interrupt besides. With `python -X dev` what is not a user's to
    mend is raised.
    """
    try:
        return do() or 0
    except KeyboardInterrupt as ended:
        return _interrupted(ended, interrupted)
    except Exception as error:
        if terminated := _is_ending():
            return _interrupted(terminated, interrupted)
        if sys.flags.dev_mode and not isinstance(error, UserError):
            raise
        return fail(error)


def say(text: str) -> None:
    """Print a line that may hold names."""
    print(one_line(text), flush=True)


def warn(text: str) -> None:
    """Print a warning, in one line."""
    print(one_line(f"warning: {text}"), file=sys.stderr, flush=True)


def fail(error: Exception | str) -> int:
    """Print what is wrong, a line for each of its messages; returns the exit code."""
    text = described(error) if isinstance(error, Exception) else error
    for message in error.args if isinstance(error, UserError) else [text]:
        print(shortened(one_line(f"error: {message}"), _MOST), file=sys.stderr, flush=True)
    return 1


def described(error: Exception) -> str:
    """What a user is told of an error: where it comes from, if it is not the user's to mend."""
    match error:
        case UserError():
            return str(error)
        case OSError(filename=str() | bytes() as name):
            reason = error.strerror or error
            return f"{os.fsdecode(name)}: {reason}; check the name, permissions and free space"
        case OSError():
            return str(error)
        case MemoryError():
            return "not enough memory; free some, or use a larger machine"
    import traceback  # not for every command's start

    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _interrupted(ended: KeyboardInterrupt, besides: str) -> int:
    number = signal.SIGTERM if isinstance(ended, Terminated) else signal.SIGINT
    word = "terminated" if number == signal.SIGTERM else "interrupted"
    print(f"{word}; {besides}" if besides else word, file=sys.stderr, flush=True)
    return 128 + number


def _last_words(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """For `sys.excepthook`."""
    ended = error if isinstance(error, KeyboardInterrupt) else _is_ending()
    if ended:
        os._exit(_interrupted(ended, ""))
    if isinstance(error, Exception):
        fail(error)
    else:
        sys.__excepthook__(kind, error, trace)


def _warn_of_library(message: Warning | str, *_: Any, **__: Any) -> None:
    """For `warnings.showwarning`."""
    warn(str(message))


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(number, _heard)
    raise Terminated


def _heard(number: int, frame: object) -> None:
    """What is being cleaned up goes on."""


def _is_ending() -> Terminated | None:
    """What a signal has raised, which a library may have made another error of."""
    return Terminated() if signal.getsignal(signal.SIGTERM) is _heard else None


def _end_soon_after(number: signal.Signals) -> None:
    """End the process soon after a signal even if no line of Python's comes to its turn.

    The main thread may be within a library, or wait for another thread that is.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)

    def watch() -> None:
        while os.read(told, 1) != bytes([number]):
            pass
        time.sleep(_PATIENCE_S)
        discard_parts()
        os._exit(_interrupted(Terminated(), ""))

    threading.Thread(target=watch, daemon=True).start()


class _Output(io.TextIOWrapper):
    """A stream that prints any name, nothing that a terminal acts on, and never fails."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(
            io.BufferedWriter(_Descriptor(stream.fileno(), "w", closefd=False)),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=True,
        )

    def write(self, text: str) -> int:
        """Write what is printable of it, line ends (of a progress bar, too) and tabs."""
        super().write(ERASE_LINE.join(printable(part, "\n\r\t") for part in text.split(ERASE_LINE)))
        return len(text)


class _Descriptor(io.FileIO):
    """What cannot be written is lost."""

    def write(self, data: Any, /) -> int:
        """Write to the descriptor."""
        with contextlib.suppress(OSError):
            return super().write(data) or len(data)
        return len(data)
