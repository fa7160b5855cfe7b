"""What the harness adds to a case: `python -m benchmarks.harness_overhead --output DIR`.

Evaluates two containers on one sample scan under several names: one that does nothing, one that
writes a mask at once. What is reported is the time from one case to the next without the engine's
own (making, running and removing the container): copying the scan, checking and scoring, writing
results. Needs a Docker engine; IMAGE_BUILD_ARGS as for `make run`.
"""

import contextlib
import io
import os
import shlex
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from benchmarks.command_line import parser, publish
from evaluation import challenges, host
from evaluation.cases import find
from evaluation.conditions import usual
from evaluation.gpu.devices import NONE
from evaluation.harness import Plan, evaluate
from evaluation.numbers import positive
from evaluation.record import Record
from evaluation.runners import images
from evaluation.submission import Submission
from evaluation.tables.markup import markdown_table
from examples import samples

IMAGE = "flare-overhead"
DOCKERFILE = """ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
WORKDIR /workspace
COPY predict.sh mask.nii.gz ./
"""
SCRIPTS = {
    "does nothing": "true",
    "writes a mask": "for scan in inputs/*; do name=$(basename $scan _0000.nii.gz);"
    " cp mask.nii.gz outputs/$name.nii.gz; done",
}


def main() -> None:
    """Measure both containers and write the table."""
    options = parser("harness_overhead", __doc__)
    options.add_argument(
        "--cases", type=positive(int), default=11, help="one more than is measured"
    )
    given = options.parse_args()
    rows = []
    for name, script in SCRIPTS.items():
        records = run(script, given.cases, given.output)
        added = overheads(records)
        wall_s = statistics.median(one.usage.wall_s for one in records if one.usage)
        seconds = (wall_s, statistics.median(added), max(added))
        rows.append([name, *(f"{s:.3f}" for s in seconds)])
    head = ("container", "its engine time, median", "added by the harness: median", "largest")
    publish(
        f"Scan lung1 (512 x 512 x 48), {given.cases - 1} cases, {host.description()}; seconds.\n\n"
        + markdown_table(head, rows),
        given.output / "harness_overhead.md",
    )


def run(script: str, count: int, cache: Path) -> Sequence[Record]:
    """Evaluate a container that runs `script` on `count` copies of a scan."""
    sample = samples.fetch(cache / "samples", names=["lung1"])[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in ("scans", "labels", "image"):
            (folder / part).mkdir()
        for i in range(count):
            shutil.copyfile(sample.scan, folder / "scans" / f"case{i:02}_0000.nii.gz")
            shutil.copyfile(sample.reference, folder / "labels" / f"case{i:02}.nii.gz")
        (folder / "image" / "Dockerfile").write_text(DOCKERFILE)
        (folder / "image" / "predict.sh").write_text(script + "\n")
        shutil.copyfile(sample.reference, folder / "image" / "mask.nii.gz")
        arguments = shlex.split(os.environ.get("IMAGE_BUILD_ARGS", ""))
        images.build(IMAGE, folder / "image", folder / "build.log", arguments)
        cases = find(folder / "scans", folder / "labels")
        conditions = usual(challenges.load(challenges.DEFAULT))
        plan = Plan(Submission(image=IMAGE), cases, folder / "results", conditions, gpu=NONE)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            return evaluate(plan, out)


def overheads(records: Sequence[Record]) -> list[float]:
    """Return the seconds from each case's start to the next one's, without the container's."""
    starts = [datetime.fromisoformat(one.started).timestamp() for one in records]
    walls = [one.usage.wall_s for one in records if one.usage is not None]
    return [
        after - before - wall
        for before, after, wall in zip(starts, starts[1:], walls, strict=False)
    ]


if __name__ == "__main__":
    main()
