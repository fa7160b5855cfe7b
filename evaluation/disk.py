"""Room on a disk, asked for before it is needed."""

import shutil
from pathlib import Path

from evaluation.runners import InfrastructureError

FREE_MIB = 512  # must stay free where the results go, and where a case lies while it runs


def check_disk(*folders: Path, needed_mib: float = 0) -> None:
    """Raise InfrastructureError when there is too little room for what is about to be written."""
    least_mib = FREE_MIB + needed_mib
    for folder in folders:
        free_mib = shutil.disk_usage(folder).free / 2**20
        if free_mib < least_mib:
            raise InfrastructureError(
                f"{folder}: {free_mib:.0f} MiB are free, less than {least_mib:.0f}; make room"
            )
