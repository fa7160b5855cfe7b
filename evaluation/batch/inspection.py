"""Whether a loaded image can be run as its contract has it; its name is checked on loading."""

import contextlib
from pathlib import Path
from typing import Any

import docker
import requests

from evaluation.contracts import Contract
from evaluation.runners import InfrastructureError, InputError, last_line
from evaluation.runners.docker import CASE_LABEL, KEPT_LOG, OWNER_LABEL, log_of
from evaluation.runners.engine_errors import (
    ENGINE_ERRORS,
    REFUSED,
    Unstarted,
    attempted,
    create,
    reason,
    start,
)
from evaluation.runners.owner import token

# In place of `sh predict.sh`: an ENTRYPOINT that hands on its command, as NVIDIA's do, is fine.
PROBE, FOUND, MISSING = "test -f predict.sh && exit 42 || exit 43", 42, 43
NOT_ENDED = -1
PROBE_S = 60.0


def inspect(client: docker.DockerClient, archive: Path, name: str, contract: Contract) -> str:
    """Return the image's id.

    Raises InputError when it is for another processor, or breaks the contract: FLARE's when it does
    not hand on the command, or has no predict.sh.
    """
    try:
        image, engine = client.images.get(name), client.version()
        ours = f"{engine['Os']}/{engine['Arch']}"
        theirs = f"{image.attrs['Os']}/{image.attrs['Architecture']}"
        if theirs != ours:
            raise InputError(
                f"{archive}: an image for {theirs}, this machine is {ours}; build it with"
                f" --platform {ours}"
            )
        contract.check_image(f"{archive}", image.attrs["Config"])
        if contract.command is None:
            return str(image.id)
        code, said = _probe(client, image.id)
    except ENGINE_ERRORS as error:
        raise InfrastructureError(f"{archive}: {name}: {reason(error)}") from error
    if code == MISSING:
        folder = image.attrs["Config"].get("WorkingDir") or "/"
        raise InputError(f"{archive}: no predict.sh in {folder}, the image's WORKDIR")
    if code == REFUSED:
        raise InputError(f"{archive}: no container of it can be started: {said}")
    if code != FOUND:
        entry = image.attrs["Config"].get("Entrypoint")
        cause = f"its ENTRYPOINT {entry} does not hand it on" if entry else "it needs /bin/bash"
        raise InputError(f'{archive}: /bin/bash -c "sh predict.sh" cannot be run, {cause}: {said}')
    return str(image.id)


def _probe(client: docker.DockerClient, image_id: str) -> tuple[int, str]:
    """Run the probe in a container; return its exit code, and what else it said."""
    options = {
        "labels": {OWNER_LABEL: token(), CASE_LABEL: "probe"},
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": "2g",
        "pids_limit": 256,
        "log_config": KEPT_LOG,
    }
    try:
        return attempted(lambda: _probed(client, image_id, options), client, options)
    except Unstarted as unstarted:
        return unstarted.code, str(unstarted)


def _probed(client: docker.DockerClient, image_id: str, options: dict[str, Any]) -> tuple[int, str]:
    container = create(client, image_id, ["/bin/bash", "-c", PROBE], options)
    try:
        start(container)
        try:
            code = int(container.wait(timeout=PROBE_S)["StatusCode"])
        except requests.exceptions.RequestException:
            client.ping()  # or it is the engine that does not end
            return NOT_ENDED, f"still running after {PROBE_S:g} s"
        return code, f"exit code {code}: {last_line(log_of(container))}"
    finally:
        with contextlib.suppress(*ENGINE_ERRORS):
            container.remove(force=True, v=True)
