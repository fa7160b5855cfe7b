"""Whether this tree's results are those of an earlier one: ``python -m benchmarks.same``.

Both do the same on a CPU: segment the two demonstration scans with several options, score the
masks, run three small submissions on six cases, and tabulate, rank and report the records that the
earlier tree has left. Masks are compared voxel by voxel, CSV column by column, tables line by line,
reports by the data in them. A line each is printed; exit code 1: something differs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from benchmarks.checkout import extract
from benchmarks.command_line import exit_code, parser
from benchmarks.programs import ROOT
from benchmarks.same.differences import folders_differ
from evaluation.errors import EvaluationError
from examples import samples

OPTIONS: dict[str, list[str]] = {
    "default": [],
    "exact": ["--exact"],
    "tta": ["--tta"],
    "step-size": ["--step-size", "0.75"],
    "crop-to-body": ["--crop-to-body"],
}
PARTS = 3  # of each scan: the cases of the submissions
COPY = 'for f in inputs/*; do cp "{}/$(basename "$f" _0000.nii.gz).nii.gz" outputs/; done\n'
FAILS = "if ls inputs/lung1-0*; then exit 3; fi\n"  # in one case
MEASURED = re.compile(r"\.csv\.\w+(_s|_mib|_mb|_gpu_time|measured_by)\[")  # columns of a run
SHOWN = 5  # of what differs, in a line


class Guard:
    """Two trees, ``previous`` and ``now``; what differs is printed and counted.

    Each has a folder of its name in ``output`` for what it makes.
    """

    def __init__(self, previous: Path, output: Path) -> None:
        self.trees = {"previous": previous, "now": ROOT}
        self.output = output
        self.differing = 0

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """Yield a list for what differs; then print whether it is empty and nothing failed."""
        found: list[str] = []
        try:
            yield found
        except (EvaluationError, OSError) as error:
            found.append(str(error))
        self.differing += bool(found)
        shown = "; ".join(found[:SHOWN]) + f" (of {len(found)})" * (len(found) > SHOWN)
        print(f"differs  {what}: {shown}" if found else f"same     {what}", flush=True)

    def both(self, *arguments: object, cwd: Path | None = None) -> None:
        """Call ``python -m`` in both trees. In arguments {tree} and {made} stand for its folders.

        A command of evaluation is told the challenge as its --help says. Raises EvaluationError.
        """
        for name, tree in self.trees.items():
            folders = {"tree": tree, "made": self.output / name}
            command = [sys.executable, "-m", *(str(a).format(**folders) for a in arguments)]
            where: Any = {"cwd": cwd or tree, "env": os.environ | {"PYTHONPATH": str(tree)}}
            where |= {"capture_output": True, "text": True, "check": False}
            if arguments[0] == "evaluation":
                told = subprocess.run([*command[:4], "--help"], **where).stdout
                names = ("--challenge", "--scoring", "--profile NAME")
                ways = [name.split()[0] for name in names if name in told]
                command += [ways[0], "flare24"] if ways else []
            done = subprocess.run(command, **where)
            if done.returncode not in (0, 1):  # 1: a case has failed
                said = done.stderr.strip() or f"exit code {done.returncode}"
                raise EvaluationError(f"{name}: {said.splitlines()[-1]}")

    def compare(self, place: str, *only: str) -> Iterator[str]:
        """Name what differs between the two trees in that folder."""
        before, now = (self.output / tree / place for tree in self.trees)
        return folders_differ(before, now, *only)


def compare_all(guard: Guard, data: Path) -> None:
    """Everything that two trees make of the demonstration scans. data: images/ and labels/."""
    for name, options in OPTIONS.items():
        with guard.step(f"masks, {name}") as found:
            given = ("--input", data / "images", "--model", "{tree}/weights/cpu-small")
            guard.both("app", *given, "--device", "cpu", "--output", f"{{made}}/{name}", *options)
            found += guard.compare(name)
        with guard.step(f"their scores, {name}") as found:
            of = ("--predictions", f"{{made}}/{name}", "--labels", data / "labels")
            guard.both("evaluation", "score", *of, "--output", f"{{made}}/scores/{name}")
            found += guard.compare(f"scores/{name}")
    cases = guard.output / "cases"
    write_cases(data, guard.output / "previous" / "default", cases)
    for team in ("fails", "model", "reference"):
        what = ("--cases", cases / "images", "--labels", cases / "labels")
        how = ("--command", "sh predict.sh", "--gpu", "none", "--output")
        with guard.step(f"a run of {team}") as found:
            guard.both("evaluation", "run", *what, *how, f"{{made}}/runs/{team}", cwd=cases / team)
            figures = guard.compare(f"runs/{team}", "*.csv")
            found += [line for line in figures if not MEASURED.search(line)]
            found += guard.compare(f"runs/{team}/predictions")
        with guard.step(f"the earlier records of {team}, tabulated") as found:
            give_both(guard, guard.output / "previous" / "runs" / team, f"records/{team}")
            again = ("--resume", *how, f"{{made}}/records/{team}")
            guard.both("evaluation", "run", *what, *again, cwd=cases / team)
            found += guard.compare(f"records/{team}")
    rank_and_report(guard, "records")


def rank_and_report(guard: Guard, place: str) -> None:
    """What two trees make of the same results of several teams."""
    for command, folder in (("rank", f"{place}/ranking"), ("report", place)):
        with guard.step(f"{command} {place}") as found:
            guard.both("evaluation", command, f"{{made}}/{place}")
            found += guard.compare(folder)


def give_both(guard: Guard, folder: Path, place: str) -> None:
    """Copy a folder into the folders of both trees."""
    for tree in guard.trees:
        shutil.copytree(folder, guard.output / tree / place)


def write_cases(data: Path, predicted: Path, cases: Path) -> None:
    """Cut scans, labels and masks into parts, and write submissions that copy the latter two."""
    for kind, source, suffix in (
        ("images", data / "images", "_0000"),
        ("labels", data / "labels", ""),
        ("predicted", predicted, ""),
    ):
        (cases / kind).mkdir(parents=True)
        for name in samples.NAMES:
            image = sitk.ReadImage(source / f"{name}{suffix}.nii.gz")
            depth = image.GetSize()[2] // PARTS
            for i in range(PARTS):
                part = image[:, :, i * depth : (i + 1) * depth]
                sitk.WriteImage(part, cases / kind / f"{name}-{i}{suffix}.nii.gz")
    predicts, knows = (COPY.format(cases / kind) for kind in ("predicted", "labels"))
    for team, script in (("model", predicts), ("reference", knows), ("fails", FAILS + predicts)):
        (cases / team).mkdir()
        (cases / team / "predict.sh").write_text(script)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("same", __doc__)
    add = options.add_argument
    add("--previous", metavar="COMMIT", required=True)
    add("--records", type=Path, help="more results to rank and to report, for example of a GPU")
    args = options.parse_args(arguments)

    def do() -> bool:
        data, output = ROOT / "runs" / "samples", args.output.resolve() / "same"
        samples.fetch(data)
        shutil.rmtree(output, ignore_errors=True)
        extract(args.previous, output / "tree")
        guard = Guard(output / "tree", output)
        compare_all(guard, data)
        if args.records:
            give_both(guard, args.records, "given")
            rank_and_report(guard, "given")
        return guard.differing == 0

    return exit_code(do)


if __name__ == "__main__":
    sys.exit(main())
