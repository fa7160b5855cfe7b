"""The demonstration (`make run`): two real scans through the submission and the harness.

Fetches the scans, builds the image (or, where no engine answers or the image cannot be built, calls
`sh predict.sh` as a process) and evaluates it. Time, memory and scores are printed; masks,
pictures and tables are in the output folder.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.cases import find
from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.harness import Plan, evaluate
from evaluation.runners import images
from evaluation.runners.docker import connect, hands_in_gpus
from evaluation.states import State
from evaluation.submission import Submission
from examples import samples

IMAGE = "flare-lesion"
SOURCE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Settings:
    """What one demonstration runs and where it puts things."""

    output: Path
    cache: Path
    runner: str  # auto, docker or process
    gpu: str | None  # as for `python -m evaluation run`
    build_arguments: Sequence[str]
    timeout_s: float
    source: Path = SOURCE


def demonstrate(settings: Settings) -> bool:
    """Run the whole demonstration, printing as it goes; return whether every case has a mask.

    Raises EvaluationError when it cannot start: no scans, no engine, no image.
    """
    scans = samples.fetch(settings.cache)
    print(f"scans    {', '.join(scan.name for scan in scans)} (in {settings.cache})")
    results = settings.output / "results"
    if (results / "run.json").exists():  # an earlier demonstration's: this one measures anew
        shutil.rmtree(results)
    submission, gpu = prepare(settings)
    plan = Plan(
        submission=submission,
        cases=find(scans[0].scan.parent, scans[0].reference.parent),
        output=results,
        gpu=gpu,
        timeout_s=settings.timeout_s,
    )
    records = evaluate(plan, sys.stdout)
    print(f"\n{(results / 'tables.md').read_text()}")
    for notice in notices(settings.source / "weights"):
        print(f"notice   {notice}")
    for what in ("predictions", "overlays", "plots", "logs", "results.csv"):
        if (results / what).exists():
            print(f"{what:11} {results / what}")
    return all(record.state is State.OK for record in records)


def prepare(settings: Settings) -> tuple[Submission, str | None]:
    """Choose the runner, build the image if it is Docker; return the submission and the GPU.

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


def prepare_process(settings: Settings, why: str) -> tuple[Submission, str | None]:
    """Return the submission that calls predict.sh without a container."""
    print(f"runner   sh predict.sh as a process ({why})")
    # predict.sh takes the first python on PATH: it must be one that has torch, this one.
    command = f'PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" sh predict.sh'
    return Submission(command=command, source=settings.source), settings.gpu


def prepare_docker(settings: Settings) -> tuple[Submission, str | None]:
    """Build the image; raises EvaluationError without an engine or an image."""
    client = connect()
    log = settings.output / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"image    building {IMAGE} ({log}) ...", flush=True)
    build_s = images.build(IMAGE, settings.source, log, settings.build_arguments)
    gpu = settings.gpu
    if gpu is None and devices.find(None) is not None and not hands_in_gpus(client):
        print("gpu      not used: the engine has no NVIDIA container toolkit")
        gpu = devices.NONE
    client.close()
    print(f"image    {IMAGE}, built in {build_s:.0f} s; one container a case")
    return Submission(image=IMAGE), gpu


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


def parse(arguments: Sequence[str] | None, environment: Mapping[str, str]) -> Settings:
    """Read the command line; IMAGE_BUILD_ARGS is split as a shell would."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/demo"))
    parser.add_argument("--cache", type=Path, default=Path("runs/samples"), help="keeps the scans")
    parser.add_argument("--runner", choices=("auto", "docker", "process"), default="auto")
    parser.add_argument("--gpu", metavar="UUID|none", help="default: the only one, if any")
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
        gpu=given.gpu,
        build_arguments=build_arguments,
        timeout_s=given.timeout,
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
