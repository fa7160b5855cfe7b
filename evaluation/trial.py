"""One measured run of a submission on one case: stage it, run it, measure it, collect its mask."""

import contextlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from evaluation.cases import Case
from evaluation.conditions import Conditions
from evaluation.disk import check_disk
from evaluation.errors import EvaluationError
from evaluation.gpu.curve import (
    BASELINE_S,
    Curve,
    area_above,
    baseline,
    flare_numbers,
    measure,
)
from evaluation.gpu.devices import Gpu
from evaluation.gpu.processes import contamination, foreign
from evaluation.gpu.sampler import GpuLost, Sampler
from evaluation.outputs import INTERVAL_S, excess
from evaluation.record import Record, Usage, Vram
from evaluation.runners import InfrastructureError, Job, Outcome, Runner
from evaluation.scratch import remove
from evaluation.staging import collect, most_bytes, stage
from evaluation.states import State, of_outcome
from volumes.files import sha256

TERMINATED = 128 + signal.SIGTERM
SIGNAL_S = 1.0  # for a signal to reach every process that it was sent to
KILLED_FOR_MEMORY = "one of its processes was killed for memory"
LOG_LINES = 50  # in a case's JSON; logs/ has more


@dataclass(frozen=True)
class Trial:
    """What one run came to. `outcome` is None, and so are its measurements, on infra_error.

    mask: where the submission's mask was moved to; None where there is none.
    """

    state: State
    message: str
    outcome: Outcome | None = None
    vram: Vram | None = None
    curve: Curve | None = None
    mask: Path | None = None

    def record(
        self, case: Case, *, attempts: int, started: str, environment: dict[str, Any]
    ) -> Record:
        """Return what is kept of it, not yet scored."""
        outcome = self.outcome
        z, y, x = case.grid.shape_zyx
        return Record(
            case=case.name,
            state=self.state,
            message=self.message,
            size_xyz=(x, y, z),
            scans_sha256=tuple(sha256(path) for path in case.scans),
            reference_sha256=sha256(case.reference) if case.reference else "",
            attempts=attempts,
            started=started,
            usage=None if outcome is None else _usage(outcome),
            vram=self.vram,
            accuracy=None,
            log=tuple(outcome.log.splitlines()[-LOG_LINES:]) if outcome else (),
            environment=environment,
            alias=case.alias,
        )


@dataclass
class MeasuredRunner:
    """A runner whose GPU is measured: what stays from one run to the next, as a context manager.

    It samples its GPU all the time, and lets a second pass after each run. folder: for what exists
    during a run only. tick: is called while a submission runs; may raise.
    """

    runner: Runner
    conditions: Conditions
    folder: Path
    gpu: Gpu | None = None
    tick: Callable[[], None] = lambda: None
    _sampler: Sampler | None = None
    _failed: bool = False  # the last run, through no fault of the submission
    _quiet_s: float = 0.0  # since when the GPU is sampled and nothing of ours is on it

    def __enter__(self) -> Self:
        self.runner.reap()  # what a harness that was killed has left would run beside ours
        self._start_sampling()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_sampling()

    def run(self, case: Case, mask: Path) -> Trial:
        """Run the submission on one case; its mask, if it ends well, is copied to `mask`."""
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.unlink(missing_ok=True)
        with _folder(self.folder) as work:
            contract = self.conditions.challenge.contract
            stage(case, work, contract)
            try:
                if self._failed:
                    self.runner.reap()
                    self._failed = False
                self._wait_for_quiet()
                check_disk(self.folder, needed_mib=self.conditions.limits.output_mib)
                check_disk(mask.parent, needed_mib=most_bytes(case) / 2**20)
                timeout_s = self.conditions.timeout_s
                outcome = self.runner.run(Job(case.name, work, timeout_s, self._watch(work)))
                self._check_signals(outcome)
                check_disk(self.folder, mask.parent)  # or what failed did so for want of space
                vram, curve = self._vram(outcome)
                state, message = self._collected(outcome, case, work / "outputs", mask)
            except (GpuLost, InfrastructureError) as error:
                self._stop_sampling()  # the next run starts anew
                self._failed = True
                return Trial(State.INFRA_ERROR, str(error))
            taken = mask if state is State.OK else None
            return Trial(state, message, outcome, vram, curve, taken)

    def _collected(
        self, outcome: Outcome, case: Case, outputs: Path, mask: Path
    ) -> tuple[State, str]:
        """Return what a run came to, and take its mask if it has ended well."""
        limits = self.conditions.limits
        state, message = of_outcome(outcome, limits, self.conditions.timeout_s)
        if state is not State.OK:
            return state, message
        if found := excess(outputs, limits.output_mib):  # since the last look
            return State.BAD_OUTPUT, found
        state, message = collect(case, outputs, mask, self.conditions.challenge.contract)
        if outcome.oom_kills:
            message = "; ".join(filter(None, (message, KILLED_FOR_MEMORY)))
        return state, message

    def _check_signals(self, outcome: Outcome) -> None:
        """Let `tick` raise if it is not the submission's doing that it has ended."""
        # A batch system that ends a job tells all of its processes, and some hear it first.
        if outcome.exit_code == TERMINATED:
            time.sleep(SIGNAL_S)
        self.tick()

    def _start_sampling(self) -> None:
        if self.gpu is not None:
            folder = Path(tempfile.mkdtemp(prefix="gpu-", dir=self.folder))
            self._sampler = Sampler(self.gpu.uuid, folder, interval_s=self.conditions.interval_s)
            self._sampler.start()
            self._quiet_s = time.monotonic()

    def _stop_sampling(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None

    def _wait_for_quiet(self) -> None:
        """Let the baseline's second pass."""
        if self._sampler is None:
            try:
                self._start_sampling()
            except EvaluationError as error:
                raise InfrastructureError(str(error)) from error
        if self._sampler is not None:
            time.sleep(max(0.0, self._quiet_s + BASELINE_S - time.monotonic()))
            self._sampler.check()

    def _watch(self, work: Path) -> Callable[[], str | None]:
        looked_s = 0.0

        def watch() -> str | None:
            nonlocal looked_s
            self.tick()
            if self._sampler is not None:
                self._sampler.check()
            now = time.monotonic()
            if now - looked_s < INTERVAL_S:
                return None
            looked_s = now
            found = excess(work / "outputs", self.conditions.limits.output_mib)
            return found and f"stopped: {found}"

        return watch

    def _vram(self, outcome: Outcome) -> tuple[Vram | None, Curve | None]:
        if self._sampler is None or outcome.runtime_s <= 0:  # it could not be started
            return None, None
        try:
            return self._measured(self._sampler, outcome)
        except GpuLost:
            raise
        except EvaluationError as error:  # samples are missing
            raise InfrastructureError(str(error)) from error

    def _measured(self, sampler: Sampler, outcome: Outcome) -> tuple[Vram, Curve]:
        before_s, start_s, finish_s = outcome.created_s, outcome.started_s, outcome.finished_s
        before = baseline(sampler.curve(before_s - BASELINE_S, before_s), before_s)
        sampler.wait_for_baseline(before.mib, outcome.removed_s)
        until_s = self._quiet_s = time.monotonic()
        curve = sampler.curve(before_s - BASELINE_S, until_s)
        usage = asdict(measure(curve, start_s, finish_s, before))
        flare_max, flare_area = flare_numbers(curve, before_s, before_s + outcome.wall_s)
        seen = sampler.processes(before_s - BASELINE_S, until_s)
        others = foreign(seen, lambda one: self.runner.owns(one.cgroup or "", one.session))
        accounted = [p.accounted_mib for p in seen if p.accounted_mib is not None]
        limit_mib = self.conditions.challenge.limits.vram_mib
        above = limit_mib and area_above(curve, start_s, finish_s, before.mib, limit_mib)
        vram = Vram(
            peak_vram_mib=usage.pop("peak_mib"),
            vram_limit_mib=limit_mib,
            area_above_limit_mib_s=above,
            accounting_peak_mib=max(accounted, default=None),
            memory_api=curve.api,
            flare_max_gpu_mb=flare_max,
            flare_auc_gpu_time=flare_area,
            contaminated=tuple(contamination(others, before)),
            **{name: value for name, value in usage.items() if name != "raw_peak_mib"},
        )
        return vram, curve


def _usage(outcome: Outcome) -> Usage:
    return Usage(
        runtime_s=outcome.runtime_s,
        wall_s=outcome.wall_s,
        flare_time_s=outcome.wall_s,
        exit_code=outcome.exit_code,
        cpu_s=outcome.cpu_s,
        peak_ram_mib=outcome.peak_ram_mib,
        measured_by=outcome.measured_by,
    )


@contextlib.contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    """Yield a folder that no other user can enter, and whose name says nothing of the case.

    A container may leave programs in outputs/ that run as root for whoever starts them.
    """
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=parent))
    try:
        yield folder
    finally:
        remove(folder)
