"""Crops of scans, drawn anew by a seed, and boxes without a lesion, as cases to train on.

``python -m training.crops --data DIR --output DIR [--crops 6] [--boxes 2] [--seed 0]``

Where scans were cropped around their lesions, position alone tells a network where they are. So
each side's margin is drawn anew between two bounds, and boxes in which there is nothing to find
stand beside them. The result is in nnU-Net's raw layout, for training.prepare: CASE_crop0, …,
CASE_box0, …, and crops.json with every draw. Called for another folder of scans, it adds to what is
there; interrupted and started again, it goes on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.cases import SUFFIX, Case, find
from training.checks import check
from training.command_line import GOES_ON, parser
from training.crop_record import RECORD, is_box, read_record
from training.errors import TrainingError
from training.files import Json, stamp, write_json
from volumes import nifti
from volumes.command import exit_code, say

Triple = NDArray[np.int64]

_TRIES = 1000  # of a box without a lesion


@dataclass(frozen=True)
class Draws:
    """What is drawn from each scan; mm, bounds of a uniform distribution."""

    crops: int = 6
    boxes: int = 2
    margin_mm: tuple[float, float] = (5.0, 50.0)
    box_mm: tuple[float, float] = (40.0, 200.0)
    seed: int = 0


def crop_around(lesion: NDArray[np.bool_], spacing: Triple, draws: Draws, rng: Any) -> Json:
    """A crop around all lesions (z, y, x), each side's margin drawn; cut where the scan ends."""
    found = np.argwhere(lesion)
    margins = np.rint(rng.uniform(*draws.margin_mm, (2, 3)) / spacing).astype(int)
    low = np.maximum(found.min(0) - margins[0], 0)
    high = np.minimum(found.max(0) + 1 + margins[1], lesion.shape)
    return {"start_zyx": low.tolist(), "size_zyx": (high - low).tolist()}


def box_without(lesion: NDArray[np.bool_], spacing: Triple, draws: Draws, rng: Any) -> Json | None:
    """A box (z, y, x) without any lesion, its sides and its place drawn; None if none is found."""
    for _ in range(_TRIES):
        sides = np.rint(rng.uniform(*draws.box_mm, 3) / spacing).astype(int)
        size = np.minimum(np.maximum(sides, 1), lesion.shape)
        start = rng.integers(0, np.array(lesion.shape) - size + 1)
        if not lesion[_slices(start, size)].any():
            return {"start_zyx": start.tolist(), "size_zyx": size.tolist()}
    return None


def draw(lesion: NDArray[np.bool_], spacing: Triple, name: str, draws: Draws) -> dict[str, Json]:
    """All crops and boxes of one scan by name. The same for the same seed and name.

    lesion: (z, y, x). spacing: mm, z, y, x. A scan without a lesion has boxes alone.
    """
    rng = np.random.default_rng([draws.seed, *hashlib.sha256(name.encode()).digest()])
    drawn: dict[str, Json] = {}
    if lesion.any():
        for number in range(draws.crops):
            drawn[f"{name}_crop{number}"] = crop_around(lesion, spacing, draws, rng)
    for number in range(draws.boxes):
        if box := box_without(lesion, spacing, draws, rng):
            drawn[f"{name}_box{number}"] = box
    return drawn


def crops(cases: Sequence[Case], output: Path, draws: Draws) -> Iterator[str]:
    """Write the crops and boxes of ``cases``, and yield a line on each; raises TrainingError.

    What is there already, drawn from the same files in the same way, stays.
    """
    record = read_record(output)
    asked = {case.name: _asked(case, draws) for case in cases}
    for name in sorted(asked.keys() & record.keys()):
        if record[name].get("asked") != asked[name]:
            raise TrainingError(
                f"{output}: holds crops of {name} already, of another scan or drawn otherwise; "
                "choose another --output"
            )
    for case in cases:
        if case.name not in record:
            drawn = _write_drawn(case, output, draws)
            record[case.name] = {
                "asked": asked[case.name],
                "crop_of": case.crop_of,
                "drawn": drawn,
            }
            write_json(output / RECORD, record)
        drawn = record[case.name]["drawn"]
        boxes = sum(map(is_box, drawn))
        yield f"{case.name}: {len(drawn) - boxes} crops, {boxes} boxes without a lesion"


def _asked(case: Case, draws: Draws) -> Json:
    """Return all that decides what is drawn of a case, in the types of JSON."""
    files = [stamp(case.scan), case.mask and stamp(case.mask)]
    asked: Json = json.loads(json.dumps({"draws": asdict(draws), "files": files}))
    return asked


def _write_drawn(case: Case, output: Path, draws: Draws) -> dict[str, Json]:
    """Draw from one scan and write each part of it and of its mask; returns what was drawn."""
    if problems := check(case).problems:
        raise TrainingError(*problems)
    scan, stored = nifti.read(case.scan)
    voxels, _ = nifti.as_itk(scan, stored)
    lesion = np.zeros(voxels.shape, bool)
    if case.mask is not None:
        lesion = nifti.read(case.mask)[1] > 0
    drawn = draw(lesion, np.array(scan.spacing), case.name, draws)
    for name, box in drawn.items():
        start, size = (box[key] for key in ("start_zyx", "size_zyx"))
        header, slices = scan.part(start, size), _slices(start, size)
        part, mask = voxels[slices], lesion[slices].astype(np.uint8)
        nifti.write(output / "imagesTr" / f"{name}_0000{SUFFIX}", header, part.dtype, [part])
        nifti.write(output / "labelsTr" / f"{name}{SUFFIX}", header, mask.dtype, [mask])
    return drawn


def _slices(start: Any, size: Any) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    default = Draws()
    options = parser("crops", __doc__)
    add = options.add_argument
    add("--data", type=Path, required=True, help="scans and masks, nnU-Net's layout or FLARE's")
    add("--healthy", type=Path, help="names of scans without a lesion in a file, or their folder")
    add("--output", type=Path, required=True, help="new, or one to add to or go on with")
    add("--crops", type=int, default=default.crops, help="around a scan's lesions (%(default)s)")
    add("--boxes", type=int, default=default.boxes, help="without a lesion, a scan (%(default)s)")
    pair: Json = {"type": float, "nargs": 2, "metavar": ("LEAST", "MOST")}
    add("--margin", default=default.margin_mm, help="of a side, mm (%(default)s)", **pair)
    add("--box", default=default.box_mm, help="side, mm (%(default)s)", **pair)
    add("--seed", type=int, default=default.seed, help="(%(default)s); written down")
    args = options.parse_args(arguments)
    draws = Draws(args.crops, args.boxes, tuple(args.margin), tuple(args.box), args.seed)

    def do() -> None:
        found = find(args.data, args.healthy)
        if found.problems:
            raise TrainingError(*found.problems)
        for line in crops(found.cases, args.output, draws):
            say(line)
        say(f"next: python -m training.prepare RECIPE --data {args.output} --output PREPARED")

    return exit_code(do, GOES_ON)


if __name__ == "__main__":
    sys.exit(main())
