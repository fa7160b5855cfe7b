"""Who may talk to the scheduler and the workers of a batch: whoever holds its certificate.

Dask runs any function that it is sent, so a port that anybody can talk to hands out this user's
account. Every connection is TLS, and both of its ends show the same self-signed certificate: one
made for the run and kept in memory, or, for a cluster, one that `python -m
evaluation.batch.scheduler` makes once.
"""

import argparse
from pathlib import Path
from typing import Any

from distributed import Security

from evaluation.errors import EvaluationError
from volumes.command import warn

CERTIFICATE, KEY = "certificate.pem", "key.pem"


def for_this_run() -> Security:
    """Return a new certificate that is in memory only."""
    security: Security = Security.temporary()
    return security


def load(folder: Path) -> Security:
    """Return the certificate of a folder; raises EvaluationError when there is none."""
    try:
        certificate, key = ((folder / name).read_text() for name in (CERTIFICATE, KEY))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{folder}: no certificate that can be read ({error}); start `python -m"
            " evaluation.batch.scheduler` with this folder, which makes it"
        ) from error
    roles = ("client", "scheduler", "worker")
    files: dict[str, Any] = {f"tls_{role}_cert": certificate for role in roles}
    files |= {f"tls_{role}_key": key for role in roles}
    return Security(require_encryption=True, tls_ca_file=certificate, **files)


def load_or_make(folder: Path) -> Security:
    """Return the certificate of a folder, which is made where there is none; valid for a year."""
    if not (folder / CERTIFICATE).exists():
        made = Security.temporary().get_tls_config_for_role("scheduler")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in ((KEY, made["key"]), (CERTIFICATE, made["cert"])):
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(text)
    return load(folder)


def chosen(address: str, given: argparse.Namespace) -> Security:
    """Return how to talk to a scheduler; raises EvaluationError when that would not be safe."""
    if given.certificates is not None:
        if not address.startswith("tls://"):
            raise EvaluationError(f"{address}: with --certificates, an address is tls://HOST:PORT")
        return load(given.certificates)
    if not given.insecure:
        raise EvaluationError(
            f"{address}: whoever reaches a scheduler or worker without TLS runs programs as this"
            " user; give --certificates, the folder of `python -m evaluation.batch.scheduler`, or"
            " --insecure where nobody else reaches them"
        )
    warn(
        f"{address} is not protected: whoever reaches it, or a port of its workers, runs programs"
        " as this user"
    )
    return Security()
