"""Pack what `make gpu-check` needs besides Python and torch: ``python -m benchmarks.pack``.

For a machine with a GPU, on linux x86_64, that reaches no package registry. There:
``tar xf gpu-check.tar.xz && cd gpu-check && make gpu-check PART=masks``; PACK_PYTHON names another
Python than python3. Inside: the checkout's files as committed, the demonstration's scans, and the
packages of the app and of nnU-Net for that version of Python.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.checkout import extract
from benchmarks.command_line import exit_code, parser
from benchmarks.pack import wheels
from benchmarks.pack.packages import folders
from benchmarks.pack.scripts import PACKAGES, write_scripts
from benchmarks.programs import ROOT
from benchmarks.sizes.versions import PACKED, app_commit
from evaluation.errors import EvaluationError
from examples import samples
from volumes.files import replacing

SUFFIX = ".tar.xz"
SAMPLES = Path("runs", "samples")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = parser("pack", __doc__)
    add = options.add_argument
    own = ".".join(platform.python_version_tuple()[:2])
    add("--python", metavar="VERSION", default=own, help="of that machine; default: %(default)s")
    add("--there", nargs="+", metavar="NAME", default=[], help="packages that it has already")
    options.set_defaults(output=ROOT / "runs" / f"gpu-check{SUFFIX}")
    args = options.parse_args(arguments)

    def do() -> bool:
        pack(args.python, args.output, args.there)
        print(f"{args.output}: {args.output.stat().st_size / 1e6:.0f} MB")
        return True

    return exit_code(do)


def pack(python: str, output: Path, there: Sequence[str]) -> None:
    """Write the archive, or nothing; raises EvaluationError."""
    if not output.name.endswith(SUFFIX):
        raise EvaluationError(f"--output {output}: should end with {SUFFIX}")
    if not re.fullmatch(r"3\.\d+", python):
        raise EvaluationError(f"--python {python}: should be a version such as 3.12")
    with tempfile.TemporaryDirectory(prefix="pack-") as temporary:
        folder = Path(temporary)
        top = folder / output.name.removesuffix(SUFFIX)
        extract("HEAD", top, root=ROOT)
        for name, requirements in folders(ROOT, there).items():
            for wheel in wheels.fetch(requirements, python, folder / f"wheels-{name}"):
                wheels.unpack(wheel, top / PACKAGES / name)
        for sample in samples.fetch(ROOT / SAMPLES, names=samples.NAMES[:1]):
            for file in (sample.scan, sample.reference):
                target = top / file.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        write_scripts(top)
        (top / PACKED).write_text(app_commit())
        compress(top, output)


def compress(top: Path, output: Path) -> None:
    """The folder as an archive; `output` is either complete or as it was."""
    with replacing(output) as part, tarfile.open(part, "w:xz") as archive:
        archive.add(top, top.name, filter=_of_nobody)


def _of_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    sys.exit(main())
