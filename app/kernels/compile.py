"""Compile norm.cu for all GPUs that torch's builds run on: ``python -m app.kernels.compile``.

Needs NVRTC (``nvidia-cuda-nvrtc``, which torch's CUDA builds bring) and no GPU. Cubins and PTX are
written beside norm.cu; those of an earlier norm.cu are removed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from app.kernels.images import LOWEST, SOURCE, cubin_name, ptx_name, source_key
from app.kernels.nvrtc import Nvrtc, NvrtcError, find_nvrtc
from volumes.files import write_whole

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 1 where something did not compile or, without --if-possible, NVRTC is missing."""
    parser = argparse.ArgumentParser(prog="python -m app.kernels.compile", description=__doc__)
    parser.add_argument(
        "--if-possible", action="store_true", help="succeed where there is no NVRTC, too"
    )
    options = parser.parse_args(arguments)
    nvrtc = find_nvrtc()
    if nvrtc is None:
        print("kernels: nothing compiled, there is no NVRTC (pip install nvidia-cuda-nvrtc)")
        return 0 if options.if_possible else 1
    try:
        print(compile_all(nvrtc, SOURCE.read_bytes(), SOURCE.parent))
    except NvrtcError as error:
        print(f"kernels: norm.cu does not compile for {error}", file=sys.stderr)
        return 1
    return 0


def compile_all(nvrtc: Nvrtc, source: bytes, folder: Path) -> str:
    """Write cubins and PTX into ``folder``; returns a line that says which were made.

    Raises NvrtcError if ``source`` does not compile; what ``folder`` had is then still there.
    """
    key = source_key(source)
    made = [a for a in ARCHITECTURES if a in nvrtc.architectures]
    missing = [a for a in ARCHITECTURES if a not in nvrtc.architectures]
    lowest = min(a for a in nvrtc.architectures if a >= LOWEST)
    images = {cubin_name(key, a): nvrtc.cubin(source, a) for a in made}
    images[ptx_name(key, lowest)] = nvrtc.ptx(source, lowest)
    for name, image in images.items():
        write_whole(folder / name, image)
    for pattern in ("norm.*.cubin", "norm.*.ptx"):
        for file in folder.glob(pattern):
            if file.name not in images:
                file.unlink()
    line = f"kernels: compiled {_names(made)} and PTX compute_{lowest}"
    return f"{line}; this NVRTC has no {_names(missing)}" if missing else line


def _names(architectures: list[int]) -> str:
    return " ".join(f"sm_{a}" for a in architectures) or "no cubin"


if __name__ == "__main__":
    sys.exit(main())
