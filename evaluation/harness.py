"""A whole evaluation of one submission: every case measured, scored, kept, and tabulated."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from msgspec import structs

from evaluation import host, scratch, settings
from evaluation.apart import Apart, CallFailed
from evaluation.cases import Case
from evaluation.challenges import CaseLimits
from evaluation.conditions import Conditions
from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.gpu.curve_file import write_curve
from evaluation.progress import Progress
from evaluation.record import Record, row, scored, unscorable
from evaluation.scoring.assess import assess, reference_of
from evaluation.scoring.rules import ScoringRules
from evaluation.scratch import Check
from evaluation.states import State
from evaluation.store import Store
from evaluation.submission import Submission
from evaluation.tables import results as tables
from evaluation.tables.csv_file import write_csv
from evaluation.trial import MeasuredRunner
from volumes.files import sha256, write_whole

ATTEMPTS = 3  # at a case that fails through no fault of the submission
PAUSE_S = 5.0  # before another attempt: a driver or an engine may come back
FAILURES = 3  # such cases in a row, and the run stops: the machine needs a person


@dataclass(frozen=True)
class Plan:
    """What is asked for: one submission, some cases, and how it is run, measured and scored.

    gpu: a UUID, "none", or None for the only GPU, if there is one.
    """

    submission: Submission
    cases: Sequence[Case]
    output: Path
    conditions: Conditions
    gpu: str | None = None
    resume: bool = False


def evaluate(plan: Plan, out: TextIO) -> list[Record]:
    """Do what a plan says; progress goes to `out`, everything else into the plan's output folder.

    Raises EvaluationError when it cannot start, or when the machine fails case after case.
    """
    gpu = devices.find(plan.gpu)
    store = Store(plan.output)
    conditions, challenge = plan.conditions, plan.conditions.challenge
    with store.locked(), contextlib.closing(plan.submission.runner(conditions, gpu)) as runner:
        described = runner.describe()
        made_with = settings.settings_of(described, conditions, gpu.uuid if gpu else None)
        settings.check(store, made_with, resume=plan.resume)
        check_files(store, plan.cases, challenge.scoring)
        settings.save(store, made_with)
        progress = Progress(out, len(plan.cases))
        for case in plan.cases:
            for remark in case.remarks:
                progress.say(f"notice: {remark}")
        with (
            scratch.folder(scratch.private()) as folder,
            MeasuredRunner(runner, conditions, folder, gpu, progress.tick) as measured,
        ):
            environment = described | {"gpu": gpu and vars(gpu)} | host.facts()
            with contextlib.closing(Apart()) as apart:
                records = _Run(measured, plan.cases, store, environment, progress, apart).all()
    from evaluation.pictures import drawing  # once all is measured: it brings matplotlib

    for problem in drawing.draw(store, plan.cases, records, challenge):
        progress.say(problem)
    return records


def check_files(store: Store, cases: Sequence[Case], rules: ScoringRules) -> None:
    """Find now, and not hours later, a reference that cannot be used or a scan that was replaced.

    Raises EvaluationError that names the file.
    """
    for case in cases:
        known = kept(store, case)
        if case.reference is not None and (known is None or not known.is_scored):
            reference_of(case.reference, rules)


def kept(store: Store, case: Case, checksum: Callable[[Path], str] = sha256) -> Record | None:
    """Return what an earlier run has of a case; unscored if its reference has changed since.

    checksum: of a file. Raises EvaluationError when the scan is not the one that was measured.
    """
    known = store.load(case.name)
    # A mask alone does not say that the run went well: one that was killed may have left it.
    measured = known is not None and known.usage is not None and store.mask(case.name).exists()
    if known is not None and known.state is State.INFRA_ERROR and measured:
        known = structs.replace(known, state=State.OK, message="")  # only its scoring failed
    if known is None or known.state is State.INFRA_ERROR:
        return known
    if known.scans_sha256 != tuple(checksum(scan) for scan in case.scans):
        raise EvaluationError(
            f"{case.scans[0]}: is not the scan that was measured; remove {store.path(case.name)}"
            " to run it again"
        )
    if case.reference is None or known.reference_sha256 == checksum(case.reference):
        return known
    return structs.replace(known, accuracy=None)


def measure(
    runner: MeasuredRunner,
    case: Case,
    store: Store,
    environment: dict[str, Any],
    attempts: range,
    began: Callable[[], None] = lambda: None,
) -> Record:
    """Run one case until it is not the machine that fails, and keep all of it, not yet scored.

    environment: what the record says of machine, engine and submission. attempts: their numbers,
    from 1; began is called at the start of each.
    """
    failures: dict[str, None] = {}  # in order, each once
    for attempt in attempts:
        began()
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        trial = runner.run(case, store.mask(case.name))
        if trial.state is not State.INFRA_ERROR:
            break
        failures[trial.message] = None
        if attempt != attempts[-1]:
            time.sleep(PAUSE_S)
    else:
        trial = replace(trial, message="; then: ".join(failures))
    one = trial.record(case, attempts=attempt, started=started, environment=environment)
    if trial.curve is not None and trial.outcome is not None:
        write_curve(store.curve(case.name), trial.curve, trial.outcome.started_s)
    write_whole(store.log(case.name), trial.outcome.log if trial.outcome else trial.message)
    # Last of all: a case whose record is there has everything else.
    store.save(one)
    return one


def score(
    one: Record,
    case: Case,
    store: Store,
    rules: ScoringRules,
    apart: Apart,
    check: Check = lambda: None,
) -> Record:
    """Hold a measured case, which has a reference, against it, and keep that.

    Whatever goes wrong with that is the case's infra_error. check: see `Apart.call`.
    """
    assert case.reference is not None
    mask = store.mask(case.name) if one.state is State.OK else None
    one = structs.replace(one, reference_sha256=sha256(case.reference))
    try:
        judged = apart.call(assess, mask, case.reference, case.grid, rules, check=check)
    except (CallFailed, EvaluationError) as failure:
        one = unscorable(one, failure)
    else:
        one = scored(one, *judged)
    store.save(one)
    return one


def tabulate(store: Store, records: Sequence[Record], limits: CaseLimits) -> None:
    """Write the tables of these records, if there are any."""
    rows = [row(one, limits) for one in records]
    if rows:
        write_csv(store.folder / "results.csv", rows)
        write_whole(store.folder / "tables.md", tables.markdown(rows, limits))
        write_whole(store.folder / "tables.tex", tables.latex(rows, limits))


@dataclass(frozen=True)
class _Run:
    """A plan at work; `environment` is what every record says of machine, engine and submission."""

    runner: MeasuredRunner
    cases: Sequence[Case]
    store: Store
    environment: dict[str, Any]
    progress: Progress
    apart: Apart

    def all(self) -> list[Record]:
        """Measure and score what is missing, and write the tables; return all records."""
        records: list[Record] = []
        try:
            for case in self.cases:
                records.append(self._case(case))
                # A case whose scoring failed has run.
                if sum(1 for one in records[-FAILURES:] if one.usage is None) == FAILURES:
                    raise EvaluationError(
                        f"{FAILURES} cases in a row failed through engine, GPU or machine, the last"
                        f" with: {records[-1].message}; mend it and go on with --resume"
                    )
        finally:
            # What was not come to this time may be there from an earlier run.
            rest = [self.store.load(case.name) for case in self.cases[len(records) :]]
            found = [*records, *(one for one in rest if one and one.is_complete)]
            tabulate(self.store, found, self.runner.conditions.challenge.limits)
        return records

    def _case(self, case: Case) -> Record:
        known = kept(self.store, case)
        measured = known is None or known.state is State.INFRA_ERROR
        if known is None or measured:
            known = measure(
                self.runner,
                case,
                self.store,
                self.environment,
                range(1, ATTEMPTS + 1),
                lambda: self.progress.began(case.name),
            )
        if known.accuracy is None and known.state is not State.INFRA_ERROR:
            rules = self.runner.conditions.challenge.scoring
            known = score(known, case, self.store, rules, self.apart)
        self.progress.ended(known, measured=measured)
        return known
