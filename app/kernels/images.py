"""Compiled forms of norm.cu: their names, which tell the source they came from, and their order.

``norm.<key>.sm_90.cubin`` runs on devices of compute capability 9.x from 9.0 on;
``norm.<key>.compute_75.ptx`` is compiled by the driver, for 7.5 and all later ones. ``<key>`` is of
the source and of the compiler's options: one of another source is never found.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from app.kernels.nvrtc import OPTIONS

SOURCE = Path(__file__).with_name("norm.cu")
LOWEST = 75  # below it (compute capability 7.5) nothing is compiled or run


def source_key(source: bytes) -> str:
    """Twelve digits that change with the source and with the compiler's options."""
    return hashlib.sha256(b"\0".join([source, *(o.encode() for o in OPTIONS)])).hexdigest()[:12]


def cubin_name(key: str, architecture: int) -> str:
    """File name of the cubin for one architecture (90 for sm_90)."""
    return f"norm.{key}.sm_{architecture}.cubin"


def ptx_name(key: str, architecture: int) -> str:
    """File name of the PTX for this compute capability (75 for 7.5) and higher."""
    return f"norm.{key}.compute_{architecture}.ptx"


def stored_cubins(folder: Path, key: str, capability: int) -> list[tuple[int, Path]]:
    """Cubins in ``folder`` that run on a device of ``capability``, the best first."""
    return _stored(folder, f"norm.{key}.sm_*.cubin", capability // 10 * 10, capability)


def stored_ptx(folder: Path, key: str, capability: int) -> list[tuple[int, Path]]:
    """PTX in ``folder`` that the driver can compile for ``capability``, the best first."""
    return _stored(folder, f"norm.{key}.compute_*.ptx", 0, capability)


def _stored(folder: Path, pattern: str, low: int, high: int) -> list[tuple[int, Path]]:
    found = []
    for file in folder.glob(pattern):
        digits = file.name.split(".")[2].rpartition("_")[2]
        if digits.isdecimal() and low <= int(digits) <= high:
            found.append((int(digits), file))
    return sorted(found, reverse=True)
