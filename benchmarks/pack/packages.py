"""Which packages go in: what the GPU's parts import, in either environment, besides torch.

What torch asks for itself comes with it. Versions are those that the requirements pin.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from evaluation.errors import EvaluationError

APP = (
    "charset-normalizer",
    "connected-components-3d",
    "iniconfig",
    "isal",
    "nibabel",
    "numpy",
    "nvidia-ml-py",
    "packaging",
    "pluggy",
    "Pygments",
    "pytest",
    "safetensors",
    "scipy",
    "SimpleITK",
)
NNUNET = (
    "acvl_utils",
    "batchgenerators",
    "batchgeneratorsv2",
    "blosc2",
    "charset-normalizer",
    "click",
    "cloudpickle",
    "connected-components-3d",
    "cycler",
    "dynamic_network_architectures",
    "fonttools",
    "httpx",
    "idna",
    "imagecodecs",
    "ImageIO",
    "joblib",
    "kiwisolver",
    "lazy-loader",
    "matplotlib",
    "msgpack",
    "narwhals",
    "ndindex",
    "nibabel",
    "nnunetv2",
    "numexpr",
    "numpy",
    "packaging",
    "pandas",
    "pillow",
    "Pygments",
    "pyparsing",
    "python-dateutil",
    "rich",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "seaborn",
    "SimpleITK",
    "threadpoolctl",
    "tifffile",
    "tqdm",
)
# Of these there may be no wheel: they are pure Python, and one is made here.
SOURCE_ONLY = (
    "acvl_utils",
    "batchgenerators",
    "batchgeneratorsv2",
    "dynamic_network_architectures",
    "nnunetv2",
)
APP_PINS = ("constraints.txt",)
NNUNET_PINS = ("training/requirements.txt",)
_PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


def normalised(name: str) -> str:
    """A package's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(names: Collection[str], root: Path, files: Collection[str]) -> list[str]:
    """``name==version`` of each; raises EvaluationError where a version is missing."""
    text = "\n".join((root / file).read_text() for file in files)
    versions = {normalised(name): version for name, version in _PIN.findall(text)}
    missing = [name for name in names if normalised(name) not in versions]
    if missing:
        raise EvaluationError(f"{', '.join(missing)}: not pinned in {', '.join(files)}")
    return [f"{normalised(name)}=={versions[normalised(name)]}" for name in names]


def folders(root: Path, there: Collection[str]) -> dict[str, list[str]]:
    """What is unpacked where: what both environments need in one version only once, in `both`."""
    without = {normalised(name) for name in there}
    app, nnunet = (
        pinned([n for n in names if normalised(n) not in without], root, files)
        for names, files in ((APP, APP_PINS), (NNUNET, NNUNET_PINS))
    )
    return {
        "both": [p for p in app if p in nnunet],
        "app": [p for p in app if p not in nnunet],
        "nnunet": [p for p in nnunet if p not in app],
    }
