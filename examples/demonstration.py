"""What the demonstration does: `demo.py` reads its command line."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from evaluation import challenges
from evaluation.cases import find
from evaluation.challenges import CaseLimits
from evaluation.conditions import usual
from evaluation.errors import EvaluationError
from evaluation.gpu import devices
from evaluation.harness import Plan, evaluate
from evaluation.record import Record, row
from evaluation.runners import images
from evaluation.runners.docker import connect, hands_in_gpus
from evaluation.states import State
from evaluation.submission import Submission
from evaluation.tables import markup
from examples import samples

IMAGE = "flare-lesion"
SOURCE = Path(__file__).resolve().parents[1]
MODEL = "cpu-small"
SAMPLE = "lung2"
# About the middle of the margins, 5 to 50 mm, of the crops that the model was trained on.
BOX_MARGIN_MM = 25.0
EXPECTED = """\
expect   In a box around the tumour, which resembles the crops that the model was trained on, it
         marks part of the tumour. In the whole chest, which it was not trained on, it marks organs
         and misses the tumour. This shows that everything works, not how well a model can do: a
         box gives away where the tumour is."""
COLUMNS = {  # of the table: head, column of results.csv, decimals
    "DSC": ("dsc", 3),
    "NSD": ("nsd", 3),
    "Seconds": ("runtime_s", 1),
    "RAM (MiB)": ("peak_ram_mib", 0),
    "GPU memory (MiB)": ("peak_vram_mib", 0),
}
KEPT = {
    "tables": "tables.md",
    "cases": "results.csv",
    "masks": "predictions",
    "pictures": "overlays",
    "curves": "plots",
    "logs": "logs",
}


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
    (chest,) = samples.fetch(settings.cache, names=[SAMPLE])
    tumour = samples.box(chest, settings.output / "box", BOX_MARGIN_MM)
    shown = {
        tumour.name: f"the box {BOX_MARGIN_MM:g} mm around the tumour",
        chest.name: "the whole chest",
    }
    print(f"model    {MODEL}: {notice(settings.source / 'weights' / MODEL)}")
    print("scans    a chest CT with a tumour of the lung, pyradiomics' sample lung2")
    print(EXPECTED, flush=True)
    results = settings.output / "results"
    if (results / "run.json").exists():  # an earlier demonstration's: this one measures anew
        shutil.rmtree(results)
    submission, gpu = prepare(settings)
    challenge = challenges.load(challenges.DEFAULT)
    plan = Plan(
        submission=submission,
        cases=[
            case
            for sample in (tumour, chest)
            for case in find(sample.scan, sample.reference.parent)
        ],
        output=results,
        conditions=replace(usual(challenge), timeout_s=settings.timeout_s),
        gpu=gpu,
    )
    records = evaluate(plan, sys.stdout)
    for picture in sorted((results / "overlays").glob(f"{tumour.name}-*.png")):
        print(f"\npicture  {picture}\n         dashed: the reference; solid: what the model found")
    print(f"\n{table(records, shown, challenge.limits)}")
    for what, where in KEPT.items():
        if (results / where).exists():
            print(f"{what:8} {results / where}")
    return all(record.state is State.OK for record in records)


def table(records: Sequence[Record], shown: Mapping[str, str], limits: CaseLimits) -> str:
    """Return one line a case in Markdown; `shown` says what each case is."""
    rows = [
        (
            shown[one.case],
            one.state,
            *(_number(row(one, limits)[column], decimals) for column, decimals in COLUMNS.values()),
        )
        for one in records
    ]
    head = ("Scan", "State", *COLUMNS)
    return markup.markdown(markup.Table("What the harness measured.", head, tuple(rows), ()), 1)


def _number(value: object, decimals: int) -> str:
    return f"{value:.{decimals}f}" if isinstance(value, float) else "not measured"


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
        return prepare_process(settings, str(error).partition(" (")[0])


def prepare_process(settings: Settings, why: str) -> tuple[Submission, str | None]:
    """Return the submission that calls predict.sh without a container."""
    print(f"runner   sh predict.sh as a process ({why})")
    command = f"sh predict.sh --model {MODEL}"
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


def notice(model: Path) -> str:
    """Return what a model's maker wants its users to know, the "notice" of its model.json."""
    path = model / "model.json"
    try:
        return str(json.loads(path.read_text())["notice"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise EvaluationError(f"{path}: no notice can be read from it ({reason})") from error
