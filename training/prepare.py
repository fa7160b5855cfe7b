"""Scans and masks to nnU-Net's preprocessed data with a recipe's plans: every case checked first.

``python -m training.prepare RECIPE --data DIR --output DIR``

DIR is in nnU-Net's raw layout or FLARE's (`training.cases`). Where training.crops has made it, the
patients and the healthy cases are known. Cases without a mask are named and left out; a partial
mask counts as a full one, as in both papers. Nothing in DIR is changed. Interrupted and started
again, it goes on.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training import nnunet
from training.cases import SUFFIX, Case, Found, find
from training.checks import Checked, check_all
from training.command_line import GOES_ON, parser
from training.errors import TrainingError
from training.files import Json, link, read_json, stamp, write_json
from training.planning import dataset_json, plans, preprocessing
from training.recipes import Recipe, load_recipe
from training.split import folds, patients
from volumes import nifti
from volumes.command import exit_code, say, warn

RECORD = "prepared.json"
SHOWN = 5  # names in a line
_DATASET = re.compile(r"Dataset\d{3}_\w+")


@dataclass(frozen=True)
class Request:
    """What is asked for, apart from the recipe."""

    data: Path
    output: Path
    healthy: Path | None = None
    patient_pattern: str | None = None
    train_only: Sequence[str] = ()
    seed: int = 0
    processes: int = 1


def prepare(recipe: Recipe, request: Request) -> None:
    """Check, link, split and preprocess; raises TrainingError, each broken case on a line."""
    found = find(request.data, request.healthy)
    dataset = request.data.resolve().name
    dataset = dataset if _DATASET.fullmatch(dataset) else "Dataset001_Lesions"
    planned = plans(recipe, dataset)
    asked = _asked(request, found, planned)
    patient_of = _patients(found, request.patient_pattern)
    record_file = request.output / RECORD
    record = _previous(record_file, asked | {"patients": patient_of})
    if record is None:
        checked = _checked(found, request.processes)
        healthy = [one.case.name for one in checked if one.case.healthy]
        record = {
            "complete": False,
            "recipe": recipe.name,
            "dataset": dataset,
            "patients": patient_of,
            "crop_of": {case.name: case.crop_of for case in found.cases if case.crop_of},
            "healthy": healthy,
            "left_out": list(found.unlabelled),
            "lesion_ml": {one.case.name: round(one.lesion_ml, 3) for one in checked},
            "to_integers": [one.case.name for one in checked if not one.stored_as_integers],
            "splits": folds(patient_of, healthy, request.seed, request.train_only),
            "asked": asked,
        }
        write_json(record_file, record)
    _say(record)
    _write_raw(found.cases, record, request.output)
    folder = request.output / nnunet.PREPROCESSED / dataset
    write_json(folder / f"{recipe.name}.json", planned)
    write_json(folder / "splits_final.json", record["splits"])
    nnunet.run(
        "preprocessor",
        dataset,
        recipe.name,
        request.processes,
        data=request.output,
        results=request.output / nnunet.RESULTS,
        processes=request.processes,
    )
    write_json(record_file, record | {"complete": True})


def _patients(found: Found, pattern: str | None) -> dict[str, str]:
    """Each case's patient; crops are of their scan's."""
    scan_of = {case.name: case.crop_of or case.name for case in found.cases}
    patient_of = patients(sorted(set(scan_of.values())), pattern)
    return {case: patient_of[scan] for case, scan in scan_of.items()}


def _asked(request: Request, found: Found, planned: Json) -> Json:
    """All that decides what is made; a folder that was made from something else is not gone on."""
    cases = {
        case.name: [stamp(case.scan), case.mask and stamp(case.mask), case.healthy]
        for case in found.cases
    }
    decides: Json = {"cases": cases, "preprocessing": preprocessing(planned)}
    decides |= {"train_only": request.train_only, "seed": request.seed}
    asked: Json = json.loads(json.dumps(decides))  # as it will be read again
    return asked


def _previous(file: Path, asked: Json) -> Json | None:
    """The record of an earlier start; raises TrainingError where it was of something else."""
    if not file.exists():
        if file.parent.is_dir() and any(file.parent.iterdir()):
            raise TrainingError(
                f"{file.parent}: is not empty, and no earlier preparation; choose another --output"
            )
        return None
    record = read_json(file, "remove the folder")
    try:
        before = record["asked"] | {"patients": record["patients"]}
    except (KeyError, TypeError) as error:
        raise TrainingError(f"{file}: is damaged ({error!r}); remove the folder") from None
    changed = [key for key, value in asked.items() if before.get(key) != value]
    if changed:
        raise TrainingError(
            f"{file.parent}: was prepared with other {', '.join(changed)}; "
            "choose another --output, or remove the folder"
        )
    return record


def _checked(found: Found, processes: int) -> list[Checked]:
    """Check every case; raises TrainingError with a line for each thing that is wrong."""
    problems, checked = list(found.problems), []
    for number, one in enumerate(check_all(list(found.cases), processes), 1):
        checked.append(one)
        problems += one.problems
        for remark in one.remarks:
            warn(remark)
        if number % 100 == 0:
            say(f"checked {number} of {len(found.cases)} cases")
    if problems:
        raise TrainingError(*problems)
    return checked


def _say(record: Json) -> None:
    counts = f"{len(record['patients'])} cases of {len(set(record['patients'].values()))} patients"
    print(
        f"{counts}, {len(record['healthy'])} healthy; {len(record['splits'])} folds by seed "
        f"{record['asked']['seed']}; partial masks count as full ones, as in the papers"
    )
    if left := record["left_out"]:
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        say(f"left out, without a mask: {', '.join(left[:SHOWN])}{more}")


def _write_raw(cases: Sequence[Case], record: Json, output: Path) -> None:
    """Fill nnU-Net's raw folder: links, and masks where one is made or its voxels are converted."""
    folder = output / nnunet.RAW / record["dataset"]
    for case in cases:
        link(folder / "imagesTr" / f"{case.name}_0000{SUFFIX}", case.scan.resolve())
        mask = folder / "labelsTr" / f"{case.name}{SUFFIX}"
        if case.mask is not None and case.name not in record["to_integers"]:
            link(mask, case.mask.resolve())
        elif not mask.exists():
            _write_mask(mask, case)
    preprocessed = output / nnunet.PREPROCESSED / record["dataset"]
    for place in (folder, preprocessed):
        write_json(place / "dataset.json", dataset_json(len(cases)))
    link(preprocessed / "gt_segmentations", (folder / "labelsTr").resolve())


def _write_mask(file: Path, case: Case) -> None:
    """A mask as uint8: of a healthy case that has none, or one that is stored otherwise."""
    if case.mask is None:
        header = nifti.read_header(case.scan)
        voxels = np.zeros(header.shape_zyx, np.uint8)
    else:
        header, stored = nifti.read(case.mask)
        voxels = nifti.as_itk(header, stored)[0].astype(np.uint8)
    nifti.write(file, header, voxels.dtype, [voxels])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("prepare", __doc__)
    add = options.add_argument
    add("recipe", help="a recipe's NAME, NAME:READING or .json file (python -m training.recipes)")
    add("--data", type=Path, required=True, help="scans and masks, nnU-Net's layout or FLARE's")
    add("--output", type=Path, required=True, help="new, or one to go on with")
    add("--healthy", type=Path, help="names of scans without a lesion in a file, or their folder")
    add(
        "--patient-pattern",
        metavar="REGEX",
        help="matches a scan's name, its one group is the patient (default: the whole name)",
    )
    add("--train-only", nargs="+", default=(), metavar="PATIENT", help="held out of no training")
    add("--seed", type=int, default=0, help="of the split by patient (0); written down")
    add("--processes", type=int, default=min(4, os.cpu_count() or 1), help="(up to 4)")
    given = vars(options.parse_args(arguments))
    named, request = given.pop("recipe"), Request(**given)

    def do() -> None:
        prepare(load_recipe(named), request)
        say(f"prepared: {request.output}")
        say(f"next: python -m training.train {named} --data {request.output} --output RESULTS")

    return exit_code(do, GOES_ON)


if __name__ == "__main__":
    sys.exit(main())
