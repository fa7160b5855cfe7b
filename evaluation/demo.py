"""The demonstration (`make run`): two real scans through the submission, as the organisers do it.

Fetches the scans, builds the image (or, where no Docker engine answers or the image cannot be
built, runs `sh predict.sh` as a process), runs it once a case, and leaves masks, previews, logs
and timings in the output folder.
"""

import argparse
import functools
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from evaluation import samples
from evaluation.errors import EvaluationError
from evaluation.metrics import dice
from evaluation.preview import preview
from evaluation.runners import Outcome, docker, last_line, process
from evaluation.volumes import geometry_difference, lesion_ml, read

IMAGE = "flare-lesion"
SOURCE = Path(__file__).resolve().parents[1]
FOLDERS = ("masks", "previews", "logs")
TABLE_HEAD = "case       time s  lesion ml  reference ml    Dice"

Run = Callable[[Path, Path], Outcome]


@dataclass(frozen=True)
class Settings:
    """What one demonstration runs and where it puts things."""

    output: Path
    cache: Path
    runner: str  # auto, docker or process
    build_arguments: Sequence[str]
    timeout_s: float
    environment: Mapping[str, str]
    source: Path = SOURCE


@dataclass(frozen=True)
class Report:
    """What came of one case; `problem` is None when there is a sound mask."""

    name: str
    runtime_s: float
    reference_ml: float
    predicted_ml: float | None = None
    dice: float | None = None
    problem: str | None = None


def demonstrate(settings: Settings) -> bool:
    """Run the whole demonstration, printing as it goes; return whether every case has a mask.

    Raises EvaluationError when it cannot start: no scans, no engine, no image, no app.
    """
    for folder in FOLDERS:
        (settings.output / folder).mkdir(parents=True, exist_ok=True)
    cases = samples.fetch(settings.cache)
    print(f"scans    {', '.join(case.name for case in cases)} (in {settings.cache})")
    run, described = prepare(settings)
    print(TABLE_HEAD, flush=True)
    reports = []
    for case in cases:
        reports.append(run_case(case, run, settings.output))
        print(table_row(reports[-1]), flush=True)
    timings = settings.output / "timings.json"
    content = {"runner": described, "cases": [asdict(report) for report in reports]}
    write_json(timings, content)
    for notice in notices(settings.source / "weights"):
        print(f"notice   {notice}")
    for folder in FOLDERS:
        print(f"{folder:8} {settings.output / folder}")
    print(f"timings  {timings}")
    return all(report.problem is None for report in reports)


def prepare(settings: Settings) -> tuple[Run, str]:
    """Choose the runner, build the image if it is Docker; return the runner and its description.

    With the runner "auto" whatever keeps Docker from being used is said, and the process runs.
    """
    if settings.runner == "process":
        return prepare_process(settings, "as asked")
    try:
        return prepare_docker(settings)
    except EvaluationError as error:
        if settings.runner == "docker":
            raise
        return prepare_process(settings, str(error))


def prepare_process(settings: Settings, why: str) -> tuple[Run, str]:
    """Return the runner that calls predict.sh without a container."""
    print(f"runner   sh predict.sh as a process ({why})")
    run = functools.partial(
        process.run,
        source=settings.source,
        environment=settings.environment,
        timeout_s=settings.timeout_s,
    )
    return run, "process"


def prepare_docker(settings: Settings) -> tuple[Run, str]:
    """Build the image, return its runner; raises EvaluationError without an engine or an image."""
    version = docker.engine_version()
    if version is None:
        raise EvaluationError("no Docker engine answers: start it, or do without")
    log = settings.output / "logs" / "build.log"
    print(f"runner   Docker {version}; building image {IMAGE} ({log}) ...", flush=True)
    build_s = docker.build(IMAGE, settings.source, log, settings.build_arguments)
    gpu = docker.gpu_options()
    with_gpu = "with GPU 0" if gpu else "without a GPU"
    print(f"image    {IMAGE}, built in {build_s:.0f} s; one container a case, {with_gpu}")
    run = functools.partial(docker.run, image=IMAGE, gpu=gpu, timeout_s=settings.timeout_s)
    return run, f"Docker {version}, {with_gpu}"


def run_case(case: samples.Sample, run: Run, output: Path) -> Report:
    """Run the submission on one case; keep its mask, preview and log under its name."""
    log = output / "logs" / f"{case.name}.log"
    kept = output / "masks" / f"{case.name}.nii.gz"
    picture = output / "previews" / f"{case.name}.png"
    for stale in (log, kept, picture):
        stale.unlink(missing_ok=True)
    scan, reference = read(case.scan), read(case.reference)
    # A container may leave folders that only root can remove.
    with tempfile.TemporaryDirectory(
        prefix=f".{case.name}-", dir=output, ignore_cleanup_errors=True
    ) as folder:
        work = Path(folder)
        stage(case.scan, work)
        outcome = run(work, log)
        report = functools.partial(Report, case.name, outcome.runtime_s, lesion_ml(reference))
        if outcome.exit_code is None:
            return report(problem=f"stopped at the time limit (log: {log})")
        if outcome.exit_code != 0:
            said = last_line(log)
            return report(problem=f"exit code {outcome.exit_code}: {said} (log: {log})")
        written = work / "outputs" / kept.name
        if not written.is_file():
            return report(problem=f"no {kept.name} in outputs (log: {log})")
        shutil.copyfile(written, kept)
    try:
        mask = read(kept)
    except EvaluationError as error:
        return report(problem=str(error))
    problem = fault(scan, mask)
    if problem is not None:
        return report(problem=f"{kept}: {problem}")
    picture.write_bytes(preview(scan, mask, reference, name=case.name))
    arrays = sitk.GetArrayViewFromImage(mask), sitk.GetArrayViewFromImage(reference)
    return report(predicted_ml=lesion_ml(mask), dice=dice(*arrays))


def stage(scan: Path, work: Path) -> None:
    """Lay out one case as the organisers do: inputs with a copy of the scan, outputs for anyone."""
    inputs, outputs = work / "inputs", work / "outputs"
    inputs.mkdir()
    outputs.mkdir()
    # Neither may depend on the umask: the image may have a user of its own.
    inputs.chmod(0o755)
    outputs.chmod(0o777)
    (inputs / scan.name).write_bytes(scan.read_bytes())
    (inputs / scan.name).chmod(0o644)


def fault(scan: sitk.Image, mask: sitk.Image) -> str | None:
    """Say why the challenge would refuse this mask, or None when it is sound."""
    difference = geometry_difference(scan, mask)
    if difference is not None:
        return f"the mask is not on the scan's grid: its {difference}"
    values = np.unique(sitk.GetArrayViewFromImage(mask))
    if not np.isin(values, (0, 1)).all():
        shown = ", ".join(str(value) for value in values[:5])
        return f"the mask must hold 0 and 1 only, it holds {shown}"
    return None


def notices(weights: Path) -> list[str]:
    """Return what the models' cards want a user to know: the optional "notice" of model.json."""
    found = []
    for card in sorted(weights.glob("*/model.json")):
        try:
            content = json.loads(card.read_text())
        except ValueError as error:
            raise EvaluationError(f"{card}: not valid JSON ({error})") from error
        if isinstance(content, dict) and content.get("notice"):
            found.append(f"{card.parent.name}: {content['notice']}")
    return found


def table_row(report: Report) -> str:
    """Return one line of the table; the problem takes the place of what is missing."""
    start = f"{report.name:8} {report.runtime_s:8.1f} "
    if report.predicted_ml is None or report.dice is None:
        return f"{start} FAILED: {report.problem}"
    return f"{start}{report.predicted_ml:10.2f} {report.reference_ml:13.2f} {report.dice:7.3f}"


def write_json(path: Path, content: object) -> None:
    """Write JSON so that `path` is never half-written."""
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)


def parse(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    """Read the command line; IMAGE_BUILD_ARGS is split as a shell would."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--cache", type=Path, default=Path("runs/samples"), help="keeps the scans")
    parser.add_argument("--runner", choices=("auto", "docker", "process"), default="auto")
    parser.add_argument(
        "--build-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for docker build, after the options in the variable IMAGE_BUILD_ARGS",
    )
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="S", help="a case's limit")
    given = parser.parse_args(arguments)
    try:
        build_arguments = shlex.split(environment.get("IMAGE_BUILD_ARGS", ""))
    except ValueError as error:
        raise EvaluationError(f"IMAGE_BUILD_ARGS cannot be split into words: {error}") from error
    for argument in given.build_arg:
        build_arguments += ["--build-arg", argument]
    return Settings(
        output=given.output,
        cache=given.cache,
        runner=given.runner,
        build_arguments=build_arguments,
        timeout_s=given.timeout,
        environment=environment,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; return 0, or 1 when something failed (said in one line)."""
    try:
        return 0 if demonstrate(parse(arguments, os.environ)) else 1
    except (EvaluationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
