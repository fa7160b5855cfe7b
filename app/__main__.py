"""Command line of the app: arguments, messages and exit codes, no logic.

Exit code 0: every case has its mask. 1: at least one has none. 2: wrong arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from app.cases import Case, find_cases
from app.environment import set_defaults
from app.image import Image, ImageError, read_image, same_grid
from app.lean.start import Progress, or_all_over_again, reconsider, torch_import
from app.model import MANIFEST, Model, ModelError, load_model
from volumes import VERSION

if TYPE_CHECKING:
    import torch

    from app.predict import Predictor

_TIME_BUDGET_HELP = "since process start (one case) or case start; larger steps if need be (off)"
_WEIGHTS = Path(__file__).resolve().parent.parent / "weights"


def main(arguments: Sequence[str] | None = None, progress: Progress | None = None) -> int:
    """Segment every case of the input; returns the exit code.

    ``progress``, from `or_all_over_again`: the process may begin anew, so torch is imported without
    what is of no use; what the process before has done is not done again.
    """
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.exact and args.time_budget is not None:
        parser.error("--time-budget may enlarge the step, so that the mask is not that of --exact")
    if args.exact and args.crop_to_body:
        parser.error("--crop-to-body moves the windows, so that the mask is not that of --exact")
    set_defaults()
    try:
        model = load_model(args.model or _only_model())
        cases, errors = find_cases(args.input, args.output, len(model.config.channels))
        for folder in {case.output.parent for case in cases}:
            _make_writable(folder)
    except (ModelError, ImageError) as error:
        return _fail(error)
    known = progress or Progress()
    known.exit_code = max(known.exit_code, int(bool(errors)))
    for refused in errors if not known.again else ():
        _fail(refused)
    cases = _from(known.under_way, cases)
    if not cases:
        return known.exit_code
    with ThreadPoolExecutor(max_workers=2) as pool:  # works while torch is being imported
        first_scan = pool.submit(_read, cases[0])
        intact = pool.submit(model.check_weights)
        with torch_import(lean=progress is not None and not args.exact):
            import app.predict  # noqa: F401
        return _run(args, model, cases, pool, first_scan, intact, known)


def _from(mask: str, cases: list[Case]) -> list[Case]:
    """The cases from that one on whose mask it is; all if there is none."""
    found = [number for number, case in enumerate(cases) if str(case.output) == mask]
    return cases[found[0] :] if found else cases


def _run(
    args: argparse.Namespace,
    model: Model,
    cases: Sequence[Case],
    pool: ThreadPoolExecutor,
    scan: Future[list[Image]],
    intact: Future[None],
    known: Progress,
) -> int:
    """Go through the cases; the next scan is read while one is segmented."""
    from app.loading import find_device
    from app.memory.budget import BudgetError
    from app.predict import Options, Predictor

    try:
        intact.result()
        device = find_device(args.device)
        if args.device == "auto" and device.type == "cpu":
            _warn("no usable NVIDIA GPU found, running on the CPU, which is much slower")
        budget_mib = _vram_budget(args.vram_budget, device)
        options = Options(
            device, args.exact, args.step_size, args.tta, budget_mib, args.crop_to_body
        )
        predictor = Predictor(model, options)
    except (ModelError, BudgetError) as error:
        return _fail(error)
    except Exception as error:  # no memory for the weights, say
        reconsider(error)
        return _fail(f"{model.folder}: {_one_line(error)}")
    _announce(args, model, device, str(predictor.compute_dtype).removeprefix("torch."))
    progress = _Progress()
    for number, case in enumerate(cases):
        if number or not known.under_way:
            # The contract is one case per process, so starting up counts for the first one.
            known.began_s = _now_s() if number else _process_start_s()
            known.under_way = str(case.output)
        deadline = None
        if args.time_budget is not None:
            deadline = time.perf_counter() + known.began_s + args.time_budget - _now_s()
        following = pool.submit(_read, cases[number + 1]) if case is not cases[-1] else scan
        try:
            laps = _predict(predictor, case, scan, progress, deadline)
        except (ImageError, BudgetError) as error:
            known.exit_code = _fail(error)
        except Exception as error:
            reconsider(error)
            known.exit_code = _fail(f"{case.files[0]}: {_one_line(error)}")
        else:
            stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in laps.items())
            print(f"{case.name}: {stages}, total {sum(laps.values()):.2f} s -> {case.output}")
        scan = following
    return known.exit_code


def _predict(
    predictor: Predictor,
    case: Case,
    scan: Future[list[Image]],
    progress: _Progress,
    deadline: float | None,
) -> dict[str, float]:
    start = time.perf_counter()
    images = scan.result()
    waited_s = time.perf_counter() - start
    for note in [n for image in images for n in image.notes]:
        _warn(f"{case.files[0]}: {note}")

    def warn(message: str) -> None:
        progress.clear()
        _warn(f"{case.files[0]}: {message}")

    def say(plan: str) -> None:
        print(f"{case.name}: {plan}")

    try:
        laps = predictor.predict(images, case.output, progress.show, warn, deadline, say)
        if deadline is not None and time.perf_counter() > deadline:
            warn(f"done {time.perf_counter() - deadline:.1f} s after the time budget")
        return {"read": waited_s, **laps}
    finally:
        progress.clear()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app", description="Segment lesions in CT with a model exported from nnU-Net"
    )
    add = parser.add_argument
    add("--version", action="version", version=f"%(prog)s {VERSION}")
    add("--input", type=Path, required=True, help="a scan, or a folder of scans")
    add("--output", type=Path, required=True, help="the mask, or a folder for the masks")
    add("--model", type=Path, help="exported model (default: the only one in weights/)")
    add("--device", choices=("auto", "cuda", "cpu"), default="auto")
    add("--exact", action="store_true", help="nnU-Net's own arithmetic; slower")
    add("--step-size", type=_step_size, default=0.5, help="between windows, in patches (0.5)")
    add("--tta", action="store_true", help="mirror along the axes that training allowed")
    add(
        "--vram-budget", type=_positive_mib, metavar="MIB", help="on a GPU, context included (4096)"
    )
    add("--crop-to-body", action="store_true", help="spare the air around it (CT); masks differ")
    add("--time-budget", type=_seconds, metavar="S", help=_TIME_BUDGET_HELP)
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


def _only_model() -> Path:
    models = sorted(m.parent for m in _WEIGHTS.glob(f"[!.]*/{MANIFEST}"))
    if len(models) == 1:
        return models[0]
    found = ", ".join(m.name for m in models) or "none"
    raise ModelError(f"{_WEIGHTS}: expected one model, found {found}; choose one with --model")


def _make_writable(folder: Path) -> None:
    """Find out before the first scan, not after it, that masks cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise ImageError(
            f"{folder}: cannot be written to; make it, or give user {os.getuid()} leave"
        )


def _vram_budget(mib: int | None, device: torch.device) -> int | None:
    """The default on CUDA; None on a CPU, where there is none to keep to."""
    from app.memory.budget import FLARE_MIB

    if device.type == "cuda":
        return mib or FLARE_MIB
    if mib is not None:
        _warn("--vram-budget does nothing on the CPU")
    return None


def _read(case: Case) -> list[Image]:
    images = [read_image(f) for f in case.files]
    for file, image in zip(case.files[1:], images[1:], strict=True):
        difference = same_grid(images[0], image)
        if difference:
            raise ImageError(f"{file}: {difference} than {case.files[0].name}; resample it first")
    return images


def _announce(args: argparse.Namespace, model: Model, device: object, dtype: str) -> None:
    config = model.config
    if config.notice:
        _warn(f"model {config.name}: {config.notice}")
    if args.exact and config.dtype != "float32":
        _warn(
            f"model {config.name}: weights are stored as {config.dtype}; masks equal nnU-Net's "
            "only with weights exported as float32"
        )
    if args.exact and config.lesion_filter is not None:
        _warn(f"model {config.name}: --exact is nnU-Net's mask, without the model's lesion filter")
    elif config.lesion_filter is not None:
        kept = config.lesion_filter
        print(
            f"model {config.name}: no lesions below {kept.min_volume_ml:g} ml or a probability of "
            f"{kept.min_probability:g}"
        )
    if args.tta and not config.mirror_axes:
        _warn(f"model {config.name}: trained without mirroring, --tta does nothing")
    print(
        f"model {config.name}: {config.network.name}, {len(config.members)} member(s), "
        f"{'exact, ' if args.exact else ''}{dtype} on {device}, "
        f"ready {_now_s() - _process_start_s():.2f} s after process start"
    )


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _process_start_s() -> float:
    """On the clock of `_now_s`."""
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, ValueError):
        return message
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {message} ({Path(where.filename).name}:{where.lineno})"


def _fail(error: object) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


class _Progress:
    """One line that is overwritten, on a terminal only."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def show(self, done: int, of: int) -> None:
        if self._on:
            print(f"\rwindow {done} of {of}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _fill_closed_streams() -> None:
    """Open what the caller has closed: else the next file gets its number, and is printed into."""
    for name in ("stdin", "stdout", "stderr"):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("r+"))  # noqa: SIM115


def command() -> NoReturn:
    """The command, by whichever name it was called; the process ends here."""
    _fill_closed_streams()
    _leave(_called())


def _called() -> int:
    """The exit code of the command line, of this process and of what it may become."""
    # As Python can be called again: a script on its stdin, say, is gone by then.
    as_module = ("-m", "app") in itertools.pairwise(sys.orig_argv)
    as_script = sys.argv[0] in sys.orig_argv and Path(sys.argv[0]).is_file()
    try:
        return or_all_over_again(lambda p: main(progress=p)) if as_module or as_script else main()
    except KeyboardInterrupt:
        _wait_for_threads()  # one that writes takes back what is not complete
        print("interrupted; masks that are there are complete", file=sys.stderr)
        return 130


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
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody listens
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    command()
