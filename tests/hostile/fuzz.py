"""Damages sound files at random and lets every reader take them: ``python -m tests.hostile.fuzz``.

For so many minutes of CPU time (10), from a seed on. What ends otherwise than as sound or in one
line is printed with its seed; once it is mended, its kind belongs into the corpus.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import itertools
import json
import logging
import random
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from app.model import FORMAT_VERSION, MANIFEST
from tests.app.dicom import made
from tests.app.small_model import CONFIG
from tests.hostile.entry import (
    as_archive,
    as_checkpoint,
    as_mask,
    as_model,
    as_postprocessing,
    as_scan,
    as_trained,
)
from tests.nnunet_models import dataset, plans
from tests.submissions import lesion, save
from tests.training.trained_folder import NETWORK
from tests.volumes.test_fuzz import RAW, WHOLE, spoil
from training.random_weights import FINAL, checkpoint, random_weights

ODD: tuple[Any, ...] = (0, -1, 10**9, 1e308, "", "a", None, True, [], {}, [[]], "٣", 1.5)


@dataclass(frozen=True)
class Kind:
    """A sound file and what it is to a reader, which is told its path, or that of its folder.

    beside: files in the same folder, by name.
    """

    name: str
    whole: Callable[[], bytes]
    attempt: Callable[[Path], str]
    folder: bool = False
    beside: Callable[[], dict[str, bytes]] = dict

    def run(self, seed: int, work: Path) -> str:
        """Let the reader take the file, damaged by a seed; returns its line, or nothing."""
        drawn = random.Random(f"{self.name}{seed}")
        content = self.whole()
        if self.name.endswith(".json") and drawn.random() < 0.7:
            content = json.dumps(_odd(json.loads(content), drawn)).encode()
        else:
            content = spoil(content, drawn)
        folder = work / "folder"
        folder.mkdir()
        for name, beside in (self.beside() | {self.name: content}).items():
            (folder / name).write_bytes(beside)
        return self.attempt(folder if self.folder else folder / self.name)


def _odd(content: Any, drawn: random.Random) -> Any:
    """JSON with an entry somewhere replaced by another thing."""
    if not content or not isinstance(content, (dict, list)) or drawn.random() < 0.1:
        return drawn.choice(ODD)
    keys = list(content) if isinstance(content, dict) else range(len(content))
    key = drawn.choice(keys)
    content[key] = _odd(content[key], drawn)
    return content


def _sound_mask() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "a.nii", lesion())
        return gzip.compress((Path(folder) / "a.nii").read_bytes(), 1)


def _checkpoint() -> bytes:
    small = dataclasses.replace(
        NETWORK, features=(1, 1, 1), encoder_blocks=(1, 1, 1), decoder_convs=(1, 1)
    )
    with tempfile.TemporaryFile() as file:
        torch.save(checkpoint(random_weights(small, 0), "3d_fullres"), file)
        file.seek(0)
        return file.read()


def _json(content: Any) -> bytes:
    return json.dumps(content).encode()


@cache
def _series() -> dict[str, bytes]:
    """Some slices of a CT."""
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder), made.slices(made.ct()[:3], made.SPACING))
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def _archive() -> bytes:
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("X/nnUNetTrainer__nnUNetPlans__3d_fullres/plans.json", _json(plans()))
        file.seek(0)
        return file.read()


POSTPROCESSING = (
    b"(]cnnunetv2.postprocessing.remove_connected_components\n"
    b"remove_all_but_largest_component_from_segmentation\na]}Vlabels_or_regions\nI1\nsat."
)
TRAINED = {"plans.json": _json(plans()), "dataset.json": _json(dataset())}
KINDS = {
    kind.name: kind
    for kind in (
        *(
            Kind(name, partial(bytes, whole), as_scan, beside=lambda: {"voxels.raw": RAW})
            for name, whole in WHOLE.items()
        ),
        Kind("slice.dcm", lambda: min(_series().values()), as_scan, folder=True, beside=_series),
        Kind("mask.nii.gz", cache(_sound_mask), as_mask),
        Kind(
            MANIFEST,
            lambda: _json({"format_version": FORMAT_VERSION, **dataclasses.asdict(CONFIG)}),
            as_model,
            folder=True,
        ),
        *(
            Kind(name, partial(bytes, whole), as_trained, folder=True, beside=lambda: TRAINED)
            for name, whole in TRAINED.items()
        ),
        Kind("postprocessing.pkl", lambda: POSTPROCESSING, as_postprocessing),
        Kind("model.zip", cache(_archive), as_archive),
        Kind(FINAL, cache(_checkpoint), as_checkpoint),
    )
}


def run(seed: int, kind: Kind) -> str | None:
    """What is wrong with how a damaged file ends; None if it ends as it must."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            line = kind.run(seed, Path(folder))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return f"not one line: {line!r}" if len(line.splitlines()) > 1 else None


def main() -> int:
    """Fuzz for a while; returns 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of CPU time (10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first file (0)")
    given = parser.parse_args()
    logging.disable()  # what nibabel says of masks that it reads
    done = found = 0
    for seed in itertools.count(given.seed):
        if time.process_time() > given.minutes * 60:
            break
        for kind in KINDS.values():
            done += 1
            if wrong := run(seed, kind):
                found += 1
                print(f'("{kind.name}", {seed}): {wrong}', flush=True)
    print(f"{done} files, {found} ended otherwise than sound or in one line")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
