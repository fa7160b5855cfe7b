"""Whether a large batch keeps its GPUs busy: `python -m benchmarks.scheduling --output DIR`.

Measures what dask and the client cost, with as many workers as the batch has GPUs (they sleep),
and how long an image takes to load where an engine answers; then plays the batch with these
figures, the product's own board deciding.
"""

import gzip
import math
import os
import shlex
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.command_line import parser, publish
from benchmarks.scheduling.roundtrip import measure
from benchmarks.scheduling.simulation import Overheads, Size, simulate
from evaluation import host
from evaluation.gpu.curve import BASELINE_S
from evaluation.runners import images
from evaluation.runners.docker import connect
from evaluation.tables.markup import markdown_table

PACE = 2.0  # of the measured batch: twice as many tasks a second as that which is simulated
SCORE_S = 2.0  # a case with its pictures; 0.6 s and less without (benchmarks/scoring.py)
# Around a container: the baseline's second (in which the next scan is copied), and what
# benchmarks/harness_overhead.py measures: 0.34 s of the engine, 0.18 s of the harness.
CASE_S = BASELINE_S + 0.34 + 0.18
IMAGES_GIB = 5.0, 10.0  # unpacked: this project's, built for CUDA (4.94), and twice as much
GOAL_IDLE, GOAL_MIB = 0.03, 1024


def main() -> None:
    """Measure, simulate, and write the table."""
    options = parser("scheduling", __doc__)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    size = Size()
    load_s, remove_s = image_s(1.0)
    trip = measure(replace(size, cases=20), PACE)
    # Every task of the batch, as fast as can be, by one machine's workers: all of them take longer.
    whole = measure(replace(size, machines=1), math.inf)
    said = (
        f"{size.teams} teams x {size.cases} cases on {size.machines} machines of {size.gpus} GPUs,"
        f" simulated with overheads measured on {host.description()}.\n\n"
        f"From one task to the next, {size.machines * size.gpus} workers with runs of {1 / PACE:g}"
        f" times the length: mean {1000 * trip.mean_s:.0f} ms (this is used), median"
        f" {1000 * trip.median_s:.0f} ms, 99 % within {1000 * trip.p99_s:.0f} ms."
        f" {whole.tasks} tasks took the client's memory to {whole.client_peak_mib:.0f} MiB"
        f" ({verdict(whole.client_peak_mib < GOAL_MIB)}: less than {GOAL_MIB}).\n"
        f"An image of 1 GiB, of which gzip makes half: {load_s:.1f} s to load, {remove_s:.1f} s to"
        f" remove. {CASE_S:.2f} s around each run, {SCORE_S:g} s for each score.\n\n"
    )
    less = f"less than {100 * GOAL_IDLE:g} %"
    head = ["runs", "images, GiB", "hours", "loaded", "GPUs at a case", "idle", less]
    rows = []
    for name, hangs in (("10 to 60 s", 0.0), ("the same, 1 in 1000 hangs for 600 s", 0.001)):
        for gib in IMAGES_GIB:
            overheads = Overheads(trip.mean_s, CASE_S, gib * load_s, gib * remove_s, SCORE_S)
            found = simulate(replace(size, hangs=hangs), overheads, given.seed)
            idle = 1 - found.at_a_case
            cells = [name, f"{gib:g}", f"{found.hours:.2f}", f"{found.loads}"]
            cells += [f"{100 * found.at_a_case:.2f} %", f"{100 * idle:.2f} %"]
            cells += [verdict(idle < GOAL_IDLE), f"{100 * found.in_containers:.2f} %"]
            rows.append([*cells, f"{found.scoring_after_h:.2f}"])
    table = markdown_table([*head, "in a container", "scoring, h"], rows, words=(0, 6))
    publish(said + table, given.output / "scheduling.md")


def verdict(met: bool) -> str:
    """Say whether a goal is met."""
    return "met" if met else "missed"


def image_s(gib: float) -> tuple[float, float]:
    """Return the seconds that an image takes to load from its archive, and to remove.

    It holds random digits, base 16: gzip makes about half of them.
    """
    client = connect()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        folder = Path(temporary)
        (folder / "Dockerfile").write_text(
            "ARG BASE_IMAGE=debian:bookworm-slim\nFROM ${BASE_IMAGE}\n"
            f"RUN head -c {round(gib * 2**29)} /dev/urandom | basenc --base16 >/weights\n"
        )
        arguments = shlex.split(os.environ.get("IMAGE_BUILD_ARGS", ""))
        name = "flare-scheduling"
        images.build(name, folder, folder / "build.log", ["--network", "none", *arguments])
        archive = folder / f"{name}.tar.gz"
        with gzip.open(archive, "wb", 1) as file:
            for chunk in client.images.get(name).save(named=True):
                file.write(chunk)
        client.images.remove(name, force=True)
        start_s = time.monotonic()
        images.load(client, archive)
        loaded_s = time.monotonic()
        client.images.remove(name, force=True)
        return loaded_s - start_s, time.monotonic() - loaded_s


if __name__ == "__main__":
    main()
