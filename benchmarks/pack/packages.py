"""Which packages go in: what the GPU's parts import, in either environment, besides torch.

Their names are in app.txt and nnunet.txt; versions are those that the project pins. What torch asks
for itself comes with it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from evaluation.errors import EvaluationError

PINS = {"app": "requirements/dev.txt", "nnunet": "requirements/nnunet.txt"}  # of each environment
_PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


def normalised(name: str) -> str:
    """A package's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(environment: str) -> list[str]:
    """The names of all packages of an environment."""
    names = Path(__file__).with_name(f"{environment}.txt").read_text().split()
    return [normalised(name) for name in names]


def pinned(names: Sequence[str], file: Path) -> list[str]:
    """``name==version`` of each; raises EvaluationError where a version is missing."""
    versions = {normalised(name): version for name, version in _PIN.findall(file.read_text())}
    if missing := [name for name in names if name not in versions]:
        raise EvaluationError(f"{', '.join(missing)}: not pinned in {file}")
    return [f"{name}=={versions[name]}" for name in names]


def folders(root: Path, there: Collection[str]) -> dict[str, list[str]]:
    """What is unpacked where: what both environments need in one version only once, in `both`."""
    without = {normalised(name) for name in there}
    app, nnunet = (
        pinned([name for name in needed(environment) if name not in without], root / pins)
        for environment, pins in PINS.items()
    )
    return {
        "both": [p for p in app if p in nnunet],
        "app": [p for p in app if p not in nnunet],
        "nnunet": [p for p in nnunet if p not in app],
    }
