"""The cases of a run, one after the other.

While torch is imported, the first scan is read and the weights are checked; while a scan is
segmented, the next one is read.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.cases import Case, find_cases
from app.image import Image, ImageError, by, is_mask_of, probabilities_of, read_channels
from app.lean.start import Progress, reconsider, torch_import
from app.listener import Listener
from app.model import Model, ModelError, find_model, load_model
from volumes.command import ERASE_LINE, described, fail, say, warn
from volumes.errors import UserError

if TYPE_CHECKING:
    import torch

    from app.predict import Predictor


@dataclass(frozen=True)
class Request:
    """What the command line asks for; its options by their names."""

    input: Path
    output: Path
    model: str | None
    device: str
    exact: bool
    step_size: float
    tta: bool
    probabilities: bool
    vram_budget: int | None
    crop_to_body: bool
    time_budget: float | None
    series: str | None
    skip_existing: bool
    quiet: bool
    verbose: bool

    def say(self, line: str) -> None:
        """On stdout, unless it should be quiet."""
        if not self.quiet:
            say(line)

    def detail(self, line: str) -> None:
        """On stdout, if it should be verbose."""
        if self.verbose:
            say(line)


def run(request: Request, known: Progress, lean: bool) -> int:
    """Segment every case of the input; returns 0, or 1 if at least one has no mask.

    ``lean``: torch is imported without what is of no use, since the process may begin anew; what
    the process before has done (``known``) is not done again.
    """
    try:
        model = load_model(find_model(request.model))
        _refuse_time_budget(request, model)
        cases, errors = find_cases(request.input, request.output, len(model.config.channels))
        for folder in {case.output.parent for case in cases}:
            _make_writable(folder)
    except (UserError, OSError) as error:
        return fail(error)
    known.exit_code = max(known.exit_code, int(bool(errors)))
    for refused in errors if not known.again else ():
        fail(refused)
    cases = _from(known.under_way, cases)
    if request.skip_existing:
        cases = [case for case in cases if not _is_done(case, request)]
    if not cases:
        return known.exit_code
    with ThreadPoolExecutor(max_workers=2) as pool:  # works while torch is being imported
        files, reader = cases[0].files, model.config.reader
        scan = pool.submit(read_channels, files, reader, request.series)
        intact = pool.submit(model.check_weights)
        with torch_import(lean=lean):
            import app.predict  # noqa: F401
        predictor = _loaded(request, model, intact)
        if predictor is not None:
            _segment_all(request, predictor, cases, pool, scan, known)
    return known.exit_code if predictor is not None else 1


def _refuse_time_budget(request: Request, model: Model) -> None:
    """A larger step is chosen by what the windows of one configuration take."""
    stages = len(list(model.stages()))
    if request.time_budget is not None and stages > 1:
        raise ModelError(
            f"model {model.config.name}: --time-budget is for a model of one configuration, and "
            f"this one has {stages}; leave it out, or choose a --step-size"
        )


def _from(mask: str, cases: list[Case]) -> list[Case]:
    """The cases from that one on whose mask it is; all if there is none."""
    found = [number for number, case in enumerate(cases) if str(case.output) == mask]
    return cases[found[0] :] if found else cases


def _is_done(case: Case, request: Request) -> bool:
    """Whether all that was asked for of a case is there, and whole; if so, that is said."""
    files = [case.output]
    if request.probabilities:
        import zipfile  # not for every start

        files.append(probabilities_of(case.output))
        if not zipfile.is_zipfile(files[1]):
            return False
    done = is_mask_of(case.output, case.files[0], request.series)
    if done:
        request.say(f"{case.name}: done before -> {' and '.join(map(str, files))}")
    return done


def _loaded(request: Request, model: Model, intact: Future[None]) -> Predictor | None:
    """The model ready to predict; None if it cannot be, which is said."""
    from app.loading import find_device
    from app.memory.budget import BudgetError, budget_on
    from app.predict import Options, Predictor

    try:
        intact.result()
        device = find_device(request.device)
        if request.device == "auto" and device.type == "cpu":
            warn("no usable NVIDIA GPU found, running on the CPU, which is much slower")
        if request.vram_budget is not None and device.type == "cpu":
            warn("--vram-budget does nothing on the CPU")
        options = Options(
            device,
            request.exact,
            request.step_size,
            request.tta,
            budget_on(device, request.vram_budget),
            request.crop_to_body,
            request.probabilities,
        )
        predictor = Predictor(model, options)
    except (ModelError, BudgetError) as error:
        fail(error)
        return None
    except Exception as error:  # no memory for the weights, say
        reconsider(error)
        fail(f"{model.folder}: {_reason(error)}")
        return None
    _announce(request, model, device, str(predictor.compute_dtype).removeprefix("torch."))
    return predictor


def _segment_all(
    request: Request,
    predictor: Predictor,
    cases: Sequence[Case],
    pool: ThreadPoolExecutor,
    scan: Future[list[Image]],
    known: Progress,
) -> None:
    """Write the mask of every case, or say why there is none."""
    from app.memory.budget import BudgetError

    for number, case in enumerate(cases):
        if number or not known.under_way:
            # The contract is one case per process, so starting up counts for the first one.
            known.began_s = _now_s() if number else _process_start_s()
            known.under_way = str(case.output)
        deadline = None
        if request.time_budget is not None:
            deadline = time.perf_counter() + known.began_s + request.time_budget - _now_s()
        following = scan
        if case is not cases[-1]:
            files, reader = cases[number + 1].files, predictor.config.reader
            following = pool.submit(read_channels, files, reader, request.series)
        try:
            laps = _segment(request, predictor, case, scan, deadline)
        except (ImageError, BudgetError) as error:
            known.exit_code = fail(error)
        except Exception as error:
            reconsider(error)
            known.exit_code = fail(f"{case.files[0]}: {_reason(error)}")
        else:
            stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in laps.items())
            request.say(f"{case.name}: {stages}, total {sum(laps.values()):.2f} s -> {case.output}")
        scan = following


def _segment(
    request: Request,
    predictor: Predictor,
    case: Case,
    scan: Future[list[Image]],
    deadline: float | None,
) -> dict[str, float]:
    """Write the mask of one case; returns the seconds that each stage took."""
    start, counter = time.perf_counter(), _WindowCounter(quiet=request.quiet)
    images = scan.result()
    waited_s = time.perf_counter() - start

    def warn_of_scan(message: str) -> None:
        counter.clear()
        warn(f"{case.files[0]}: {message}")

    for note in [n for image in images for n in image.notes]:
        warn_of_scan(note)
    for file, image in zip(case.files, images, strict=True):
        request.detail(f"{case.name}: {file} is {image}")
    listener = Listener(
        counter.show, lambda plan: request.say(f"{case.name}: {plan}"), warn_of_scan
    )
    try:
        laps = predictor.write(images, case.output, listener, deadline)
        if deadline is not None and time.perf_counter() > deadline:
            warn_of_scan(f"done {time.perf_counter() - deadline:.1f} s after the time budget")
        request.detail(f"{case.name}: {counter.windows} windows")
        return {"read": waited_s, **laps}
    finally:
        counter.clear()


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


def _announce(request: Request, model: Model, device: torch.device, dtype: str) -> None:
    config = model.config
    if config.notice:
        warn(f"model {config.name}: {config.notice}")
    if request.exact and config.dtype != "float32":
        warn(
            f"model {config.name}: weights are stored as {config.dtype}; masks equal nnU-Net's "
            "only with weights exported as float32"
        )
    if request.exact and config.lesion_filter is not None:
        warn(f"model {config.name}: --exact is nnU-Net's mask, without the model's lesion filter")
    elif config.lesion_filter is not None:
        kept = config.lesion_filter
        request.say(
            f"model {config.name}: no lesions below {kept.min_volume_ml:g} ml or a probability of "
            f"{kept.min_probability:g}"
        )
    if config.postprocessing is not None:
        said = f"{config.postprocessing} stays, as nnU-Net's postprocessing"
        request.say(f"model {config.name}: {said}")
    stages = [stage.config for stage in model.stages()]
    for stage in stages if request.tta else ():
        if not stage.mirror_axes:
            warn(f"model {stage.name}: trained without mirroring, --tta does nothing")
    what = " and ".join(s.configuration for s in stages) if stages[1:] else config.network.name
    request.say(
        f"model {config.name}: {what}, {sum(len(s.members) for s in stages)} member(s), "
        f"{'exact, ' if request.exact else ''}{dtype} on {device}, "
        f"ready {_now_s() - _process_start_s():.2f} s after process start"
    )
    request.detail(
        f"model {config.name}: {model.folder}, channels {', '.join(config.channels)}, labels "
        f"{', '.join(config.labels)}"
    )
    for stage in stages:
        patch, spacing = by(stage.patch_size), by(tuple(filter(None, stage.spacing)))
        request.detail(f"model {stage.name}: patches of {patch} voxels of {spacing} mm")


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _process_start_s() -> float:
    """On the clock of `_now_s`."""
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def _reason(error: Exception) -> str:
    """A ValueError is of the scan or the model, and explains itself."""
    return str(error) if isinstance(error, ValueError) else described(error)


class _WindowCounter:
    """One line that is overwritten, on a terminal only."""

    def __init__(self, quiet: bool) -> None:
        self._on = sys.stderr.isatty() and not quiet
        self.windows = 0  # of the last way through the scan

    def show(self, done: int, of: int) -> None:
        self.windows = of
        if self._on:
            print(f"{ERASE_LINE}window {done} of {of}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._on:
            print(ERASE_LINE, end="", file=sys.stderr, flush=True)
