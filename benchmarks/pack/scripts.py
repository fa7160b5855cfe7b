"""What stands for the virtual environments' programs: small scripts that may lie anywhere.

They start the machine's own Python, $PACK_PYTHON or python3, with the unpacked packages before its
own. Whatever that starts inherits PYTHONPATH, so each script begins with what the machine had.
"""

from __future__ import annotations

from pathlib import Path

PACKAGES = "packages"  # below the top folder: both/, app/ and nnunet/
_PYTHON = """\
#!/bin/sh
top=$(readlink -f "$0") && top=${{top%/*/*/*}} || exit
export PACK_PYTHONPATH="${{PACK_PYTHONPATH-${{PYTHONPATH-}}}}"
packages="$top/{packages}/{own}:$top/{packages}/both"
export PYTHONPATH="$packages${{PACK_PYTHONPATH:+:$PACK_PYTHONPATH}}"
exec "${{PACK_PYTHON:-python3}}" "$@"
"""
# A shell's script and a Python script at once, as nnU-Net's worker processes import it again.
_PREDICT = """\
#!/bin/sh
'''exec' "$(dirname "$(readlink -f "$0")")/python" "$0" "$@"
' '''
import sys

from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder

if __name__ == "__main__":
    sys.exit(predict_entry_point_modelfolder())
"""


def write_scripts(top: Path) -> None:
    """Write all three scripts below the top folder."""
    _write(top / ".venv/bin/python", _PYTHON.format(packages=PACKAGES, own="app"))
    nnunet = top / ".venv-nnunet/bin"
    _write(nnunet / "python", _PYTHON.format(packages=PACKAGES, own="nnunet"))
    _write(nnunet / "nnUNetv2_predict_from_modelfolder", _PREDICT)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
